//go:build linux

// Package control is how a `postern run` and the other commands talk: a UNIX socket,
// one for each network namespace, that answers HTTP with JSON.
//
//	GET  /status   what is in force
//	GET  /events   a line for each event, as long as the reader reads
//	POST /reload   read the policy file again
//
// The socket is mode 0600, and its server asks the kernel who calls (SO_PEERCRED): root
// and the user that it runs as are answered, others are told why not.
//
// What a policy says, and how it is put in force, is not known here.
package control

import (
	"errors"
	"path/filepath"
	"strconv"
)

// Dir is where the sockets are.
const Dir = "/run/postern"

// ErrNotRunning is matched where no `postern run` has the socket.
var ErrNotRunning = errors.New("no postern run in this network namespace")

// RunningError says that another process has the socket already.
type RunningError struct {
	PID int // 0 if it is not known (yet)
}

func (e *RunningError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = "process " + strconv.Itoa(e.PID)
	}
	return who + " is the postern run of this network namespace"
}

// Path is the socket's, in dir, for the network namespace with this cookie, which no other
// gets until the machine starts anew.
func Path(dir string, cookie uint64) string {
	return filepath.Join(dir, strconv.FormatUint(cookie, 10)+".sock")
}
