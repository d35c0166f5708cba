// Package health runs checks: a program that must end with 0, a TCP connection that must be
// accepted, an HTTP request that must be answered with 2xx or 3xx. It refuses to know what follows
// from them.
package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Check is one; exactly one of the first three is set.
type Check struct {
	Exec      []string
	TCP, HTTP string

	Interval, Timeout time.Duration
	// Fall failures in a row make it unhealthy, Rise successes healthy.
	Fall, Rise int
}

// Run runs checks until ctx is done, and tells what the first one of each says at once,
// and then each change.
func Run(ctx context.Context, checks map[string]Check, tell func(name string, healthy bool, why string)) {
	var all sync.WaitGroup
	for name, c := range checks {
		all.Go(func() { c.run(ctx, func(healthy bool, why string) { tell(name, healthy, why) }) })
	}
	all.Wait()
}

func (c Check) run(ctx context.Context, tell func(bool, string)) {
	every := time.NewTicker(c.Interval)
	defer every.Stop()
	state := thresholds{fall: c.Fall, rise: c.Rise}
	for {
		err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if state.next(err == nil) {
			why := ""
			if err != nil {
				why = err.Error()
			}
			tell(state.healthy, why)
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// thresholds turn results into a state.
type thresholds struct {
	fall, rise   int
	known        bool
	healthy      bool
	contradicted int // results in a row that are not as the state
}

// next takes a result and says whether the state is new.
func (t *thresholds) next(ok bool) bool {
	if !t.known {
		t.known, t.healthy = true, ok
		return true
	}
	if ok == t.healthy {
		t.contradicted = 0
		return false
	}
	t.contradicted++
	if (ok && t.contradicted < t.rise) || (!ok && t.contradicted < t.fall) {
		return false
	}
	t.healthy, t.contradicted = ok, 0
	return true
}

var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (c Check) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	switch {
	case len(c.Exec) > 0:
		return c.program(ctx)
	case c.TCP != "":
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.TCP)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.HTTP, nil)
	if err != nil {
		return err
	}
	r, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = r.Body.Close()
	if r.StatusCode < 200 || r.StatusCode > 399 {
		return fmt.Errorf("%s: %s", c.HTTP, r.Status)
	}
	return nil
}

func (c Check) program(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, c.Exec[0], c.Exec[1:]...)
	// What it started may hold its output open.
	cmd.WaitDelay = 100 * time.Millisecond
	out, err := cmd.CombinedOutput()
	if err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%s: %w %.100s", c.Exec[0], err, said)
	}
	return nil
}
