package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestMachineRefuses: what a machine lacks is named, with its remedy.
func TestMachineRefuses(t *testing.T) {
	if why := kernelWithout(t); why != "" {
		labtest.Cannot(t, why)
	}
	for name, debian := range map[string]string{"nft": "nftables", "setpriv": "util-linux", "unshare": "util-linux", "mount": "mount"} {
		labtest.Tool(t, name, debian)
	}
	exe, err := os.Executable()
	must(t, err)
	asNobody := func(cmd *exec.Cmd, ambient ...uintptr) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: ambient}
	}
	// after has a shell do something in mount and network namespaces of its own first.
	after := func(script string) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			args := append([]string{"sh", "-c", script + ` "$0" "$@"`, exe}, cmd.Args[1:]...)
			cmd.Path, cmd.Args = "/bin/sh", args
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
		}
	}
	const outside = "remedy: run outside of the user namespace"
	for _, tt := range []struct {
		name   string
		policy string
		in     func(*exec.Cmd)
		want   []string
	}{
		{"another user", "", func(cmd *exec.Cmd) { asNobody(cmd) },
			[]string{"permission denied", "remedy: run as root: this process has no CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"}},
		{"another user with CAP_NET_ADMIN", "", func(cmd *exec.Cmd) { asNobody(cmd, unix.CAP_NET_ADMIN) },
			[]string{"permission denied", "remedy: run as root: this process has no CAP_BPF, CAP_PERFMON"}},
		{"root without CAP_PERFMON", "", after("mount -t bpf bpf /sys/fs/bpf && exec setpriv --bounding-set=-all,+bpf,+net_admin"),
			[]string{"remedy: run as root: this process has no CAP_PERFMON"}},
		{"ip netns exec", "", after("mount -t sysfs sysfs /sys && exec"),
			[]string{"/sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf", "inside `ip netns exec`", "nsenter --net="}},
		{"no cgroup2", "seal: /\n", after("mount -t bpf bpf /sys/fs/bpf && umount -a -t cgroup2 && exec"),
			[]string{"not a cgroup v2", "mount -t cgroup2"}},
		{"another's table", "hook: gate\n", after("mount -t bpf bpf /sys/fs/bpf && nft add table netdev postern && exec"),
			[]string{"postern", "belongs to someone else", "remedy: remove it"}},
		{"user namespace", "", after("mount -t bpf bpf /sys/fs/bpf && exec unshare -Ur"), []string{"not permitted", outside}},
		{"user namespace and no bpffs", "", after("mount -t sysfs sysfs /sys && exec unshare -Ur"), []string{"/sys/fs/bpf", outside}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := commandOf(t, "apply", "-f", "-")
			cmd.Stdin = strings.NewReader("policy: p\nguard: [{interfaces: [lo]}]\n" + tt.policy)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			tt.in(cmd)
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != exitMachine {
				t.Fatalf("%v: %s", err, errs.String())
			}
			for _, w := range tt.want {
				if !strings.Contains(errs.String(), w) {
					t.Errorf("no %q in %s", w, errs.String())
				}
			}
		})
	}
}
