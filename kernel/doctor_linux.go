package kernel

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/bpffs"
	"github.com/postern-fw/postern/kernel/gate"
	"github.com/postern-fw/postern/kernel/seal"
	"github.com/postern-fw/postern/kernel/tc"
)

// Doctor finds out what this kernel and these rights can do, and what remains open of what is
// guarded. It changes nothing.
func (h Host) Doctor() *Diagnosis {
	d := &Diagnosis{}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.Checks = append(d.Checks, Check{Name: "kernel", OK: true, Detail: "Linux " + unix.ByteSliceToString(u.Release[:])})
	}
	d.check("rights", rights(), "root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", "run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
	d.check("bpffs", h.bpffs(), h.root()+" can keep pins", "mount -t bpf bpf /sys/fs/bpf; inside `ip netns exec`, whose own /sys hides it, use `nsenter --net=/run/netns/NAME`")
	d.check("eBPF programs", bpf.Probe(), "the engine's programs load", "a kernel from 5.17 on with CONFIG_BPF_SYSCALL, and CAP_BPF with CAP_PERFMON")
	d.check("tc hook", tc.Probe(), "tcx or clsact: sees packet sockets without PACKET_QDISC_BYPASS", "a kernel with CONFIG_NET_XGRESS (6.6) or CONFIG_NET_CLS_ACT")
	d.check("gate", gate.Probe(h.NetNS), "netfilter's egress hook and ifb: sees packet sockets with PACKET_QDISC_BYPASS too", "a kernel from 5.17 on with CONFIG_NETFILTER_EGRESS, CONFIG_NFT_FWD_NETDEV and CONFIG_IFB")
	_, err := cgroup2Mount()
	if err == nil {
		err = seal.Probe()
	}
	d.check("seal", err, "cgroup/setsockopt programs: forbid PACKET_QDISC_BYPASS and AF_XDP to sockets that are made", "mount -t cgroup2 none /sys/fs/cgroup, and a kernel with CONFIG_CGROUP_BPF")
	d.check("JIT", jit(), "programs are compiled to machine code", "sysctl net.core.bpf_jit_enable=1")
	status, err := h.Status()
	switch {
	case err != nil:
		d.check("policy in force", err, "", "see the message")
	case !status.Enforcing:
		d.Checks = append(d.Checks, Check{Name: "policy in force", OK: false, Detail: "none", Remedy: "postern apply -f FILE"})
	default:
		d.Checks = append(d.Checks, Check{Name: "policy in force", OK: true, Detail: status.Policy + ", from " + status.File})
		d.Interfaces = status.Interfaces
	}
	return d
}

func (d *Diagnosis) check(name string, err error, ok, remedy string) {
	c := Check{Name: name, OK: err == nil, Detail: ok}
	if err != nil {
		c.Detail, c.Remedy = err.Error(), remedy
	}
	d.Checks = append(d.Checks, c)
}

func (h Host) root() string {
	if h.Root != "" {
		return h.Root
	}
	return DefaultRoot
}

// bpffs says whether the pins' directory is in a bpffs, or could be.
func (h Host) bpffs() error {
	f, err := bpffs.Open(h.root(), false)
	if f != nil {
		f.Close()
	}
	return err
}

func jit() error {
	b, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	if err != nil {
		return nil // always on
	}
	if strings.TrimSpace(string(b)) == "0" {
		return errors.New("off: programs are interpreted, several times slower")
	}
	return nil
}
