//go:build linux

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel"
)

// Service is what a server answers with.
type Service struct {
	Status func() (*kernel.Status, error)
	// Reload reads the policy file again. Its error is the caller's to read.
	Reload func(context.Context) (*kernel.Status, error)
	Events *Hub
}

func (s Service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		status, err := s.Status()
		answer(w, http.StatusInternalServerError, status, err)
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		status, err := s.Reload(r.Context())
		answer(w, http.StatusUnprocessableEntity, status, err)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { s.stream(w, r) })
	return mux
}

func newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           onlyKnown(h),
		ReadHeaderTimeout: 5 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, callerKey{}, refusal(c))
		},
	}
}

// callerKey finds why the caller of a request is refused, in its context.
type callerKey struct{}

// refusal says why the process at the other end is not answered; "" if it is.
func refusal(c net.Conn) string {
	cred, err := peer(c)
	switch known := []uint32{0, uint32(os.Geteuid())}; {
	case err != nil:
		return fmt.Sprintf("the kernel does not say who calls: %v", err)
	case !slices.Contains(known, cred.Uid):
		return fmt.Sprintf("postern run (process %d) answers root and the user %d, not you, who are user %d", os.Getpid(), known[1], cred.Uid)
	}
	return ""
}

// peer asks the kernel who is at the other end of a UNIX socket: who called connect or, for
// a client, listen.
func peer(c net.Conn) (cred *unix.Ucred, err error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%s is no UNIX socket", c.RemoteAddr())
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return nil, e
	}
	return cred, err
}

func onlyKnown(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why, _ := r.Context().Value(callerKey{}).(string); why != "" {
			answer(w, http.StatusForbidden, nil, errors.New(why))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// problem is the body of an answer that is an error.
type problem struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, failed int, status *kernel.Status, err error) {
	Answer(w, failed, status, err)
}

// Answer writes a value, or an error with its HTTP status.
func Answer(w http.ResponseWriter, failed int, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	// Whoever does not read the answer to the end has gone.
	if err != nil {
		w.WriteHeader(failed)
		_ = enc.Encode(problem{err.Error()})
		return
	}
	_ = enc.Encode(value)
}

// line is one of those of /events: an event, or how many of them were lost.
type line struct {
	*Event
	Lost uint64 `json:"lost,omitempty"`
}

func (s Service) stream(w http.ResponseWriter, r *http.Request) {
	events := s.Events.Read()
	defer events.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, flusher := json.NewEncoder(w), http.NewResponseController(w)
	enc.SetEscapeHTML(false)
	// The header tells the reader that from here on it misses nothing.
	for err := flusher.Flush(); err == nil; err = flusher.Flush() {
		select {
		case <-r.Context().Done():
			return
		case e := <-events.Events:
			if err := enc.Encode(line{e, events.Lost()}); err != nil {
				return
			}
		}
	}
}
