package afpacket

import (
	"bytes"
	"os"
	"sync"

	"github.com/postern-fw/postern/firewall/filter"
)

// self is this process as policies know it, read once. It is shared.
var self = sync.OnceValue(func() *filter.Sender {
	comm, _ := os.ReadFile("/proc/self/comm")
	s := &filter.Sender{UID: uint32(os.Getuid()), PID: uint32(os.Getpid()), Comm: string(bytes.TrimSuffix(comm, []byte("\n")))}
	// cgroup v2 is the line of hierarchy 0 (cgroups(7)); a policy that asks for a
	// cgroup which cannot be read does not match.
	lines, _ := os.ReadFile("/proc/self/cgroup")
	for line := range bytes.Lines(lines) {
		if path, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			s.Cgroup = string(bytes.TrimSuffix(path, []byte("\n")))
		}
	}
	return s
})
