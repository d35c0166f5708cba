package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/internal/control"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/bpffs"
	"github.com/postern-fw/postern/kernel/gate"
	"github.com/postern-fw/postern/kernel/seal"
	"github.com/postern-fw/postern/kernel/tc"
)

// refused sorts an error of package kernel by exit code: what is wrong with a policy is
// told as `check` does, where the machine refused the remedy is added.
func (t *term) refused(err error) error {
	var wrong firewall.Diagnostics
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		fmt.Fprintln(t.errs, wrong.Error())
		return answerNo
	}
	code := exitMachine
	var element *filter.Error
	if errors.As(err, &element) {
		code = exitUsage
	}
	for _, no := range []error{kernel.ErrNothing, kernel.ErrNoGuard, kernel.ErrNotPending, kernel.ErrNoSet, bpf.ErrTooLarge} {
		if errors.Is(err, no) {
			code = exitNo
		}
	}
	r := remedy(err)
	if r == "" && code == exitMachine {
		r = missing() // whatever else the kernel says then
	}
	if r != "" {
		err = fmt.Errorf("%w\nremedy: %s", err, r)
	}
	return &exitError{code, err}
}

// refusedPolicy is refused, for a policy that was to be put in force: where it asks for
// what the engine cannot do, on no kernel, the policy is to blame.
func (t *term) refusedPolicy(src kernel.Source, err error) error {
	if !errors.Is(err, bpf.ErrNotSupported) {
		return t.refused(err)
	}
	p, _, invalid := firewall.Parse(src.Name, src.Text)
	if invalid != nil {
		return t.refused(invalid)
	}
	if _, cannot := bpf.Compile(firewall.Compile(p), bpf.Options{}); cannot != nil {
		return &exitError{exitNo, err}
	}
	return t.refused(err)
}

// remedies are for errors that do not name theirs, the first that matches.
var remedies = []struct {
	of  error
	say func() string
}{
	{kernel.ErrNothing, text("postern apply -f FILE puts one in force")},
	{kernel.ErrNoSet, text("postern set list names those that there are")},
	{kernel.ErrBusy, text("end the other postern monitor; the events of a postern run can be read by several at once")},
	{gate.ErrForeign, text("remove it (nft list tables; ip link), or let its owner give it another name")},
	{tc.ErrForeign, text("remove it from the bpffs, if nobody needs it")},
	{seal.ErrForeign, text("remove it from the bpffs, if nobody needs it")},
	{seal.ErrNoCgroup2, text("mount one (mount -t cgroup2 none /sys/fs/cgroup), correct the path under `seal`, or leave `seal` out")},
	{gate.ErrNotSupported, text(byDoctor)},
	{tc.ErrNotSupported, text(byDoctor)},
	{seal.ErrNotSupported, text(byDoctor)},
	{bpf.ErrNotSupported, rights},
	{os.ErrPermission, rights},
	{bpffs.ErrNone, func() string {
		if inUserNamespace() {
			return outside
		}
		return ""
	}},
}

const byDoctor = "postern doctor tells what this kernel can do, and what follows"

func text(s string) func() string { return func() string { return s } }

func remedy(err error) string {
	var running *control.RunningError
	if errors.As(err, &running) {
		return "at SIGHUP it reads its file again; end it to start another"
	}
	for _, r := range remedies {
		if errors.Is(err, r.of) {
			return r.say()
		}
	}
	return ""
}

// needed are the capabilities without which nothing can be put in force: the kernel lets a
// program of ours ask for the sender's name with CAP_PERFMON only. CAP_SYS_ADMIN serves
// for those that were once part of it.
var needed = []struct {
	name string
	bits uint64
}{
	{"CAP_BPF", 1<<unix.CAP_BPF | 1<<unix.CAP_SYS_ADMIN},
	{"CAP_NET_ADMIN", 1 << unix.CAP_NET_ADMIN},
	{"CAP_PERFMON", 1<<unix.CAP_PERFMON | 1<<unix.CAP_SYS_ADMIN},
}

const outside = "run outside of the user namespace: eBPF programs cannot be loaded in one"

// rights says which of them this process lacks, or that a user namespace gives them.
func rights() string {
	if m := missing(); m != "" || !inUserNamespace() {
		return m // else a security module, or something that the error names
	}
	return outside
}

func missing() string {
	var names []string
	have := capabilities()
	for _, c := range needed {
		if have&c.bits == 0 {
			names = append(names, c.name)
		}
	}
	if names == nil {
		return ""
	}
	return "run as root: this process has no " + strings.Join(names, ", ")
}

// capabilities are those in force for this process, a bit each.
func capabilities() (set uint64) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return 0
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
}

// inUserNamespace reports whether not every user is mapped to itself, as in the initial
// user namespace alone.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}
