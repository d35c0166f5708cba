package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/fence"
)

func newDemoCluster(t *term) *cobra.Command {
	var etcd string
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Watch virtual addresses change hands, in throw-away network namespaces",
		Long: `cluster makes three nodes with an agent each, three servers of a real etcd and an
observer of the segment between the nodes. It kills an agent, freezes one, cuts one
off etcd and drains one, and tells who announces what. It touches nothing on the host.
The exit code is 1 if a node was heard after its successor.

Without --etcd it builds the server from the module in integration/etcd, which takes
the source tree and, once, a minute.`,
		Example: "  postern demo cluster\n  postern demo cluster --etcd /usr/local/bin/etcd",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			err := demoCluster(t.out, etcd)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, errDemo):
				return &exitError{exitNo, err}
			case errors.Is(err, unix.EPERM):
				err = fmt.Errorf("%w\nremedy: run as root", err)
			}
			return &exitError{exitMachine, err}
		},
	}
	cmd.Flags().StringVar(&etcd, "etcd", "", "the etcd server to start, version 3.5 or later")
	return cmd
}

// demoCluster runs in a namespace of mounts of its own, so that nothing it mounts stays.
func demoCluster(out io.Writer, etcd string) error {
	if os.Getenv(demoInside) == "" {
		cmd := exec.Command("/proc/self/exe", "demo", "cluster", "--etcd", etcd)
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		cmd.Env = append(os.Environ(), demoInside+"="+demoRoot)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return &exitError{code: exit.ExitCode()}
		}
		return err
	}
	if etcd == "" {
		var err error
		if etcd, err = buildEtcd(out); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	const config = "announce: {interval: 300ms, refresh: 1s, probe-interval: 100ms}\naddresses: [{address: 10.8.1.1-10.8.1.6}]\n"
	site, err := fence.New(fence.Options{Postern: self, Etcd: etcd, Nodes: 3, Members: 3, Config: config})
	if err != nil {
		return err
	}
	defer site.Close()
	return (&clusterDemo{Site: site, out: out, colour: newPaint(out), began: cluster.BootTime()}).run()
}

// buildEtcd builds the server, or finds it where it was built before.
func buildEtcd(out io.Writer) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join("integration", "etcd")
	if _, err := os.Stat(filepath.Join(dir, "main.go")); err != nil {
		return "", errors.New("no etcd server: name one by --etcd (version 3.5 or later), or run this in postern's source tree, whose integration/etcd builds one")
	}
	path := filepath.Join(cache, "postern", "etcd")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	fmt.Fprintln(out, "Building the etcd server in "+dir+".")
	return path, fence.BuildEtcd(dir, path)
}

// clusterDemo is a site, and what was told of it.
type clusterDemo struct {
	*fence.Site
	out    io.Writer
	colour paint
	began  int64
	read   int
	last   map[netip.Addr]string
}

func (d *clusterDemo) say(colour, format string, args ...any) {
	at := time.Duration(cluster.BootTime() - d.began).Seconds()
	fmt.Fprintf(d.out, "%6.2f s  %s\n", at, d.colour.in(colour, fmt.Sprintf(format, args...)))
}

func (d *clusterDemo) run() error {
	d.last = map[netip.Addr]string{}
	d.say("", "Three servers of etcd are up; three agents start. They share 10.8.1.1 to 10.8.1.6.")
	for _, n := range d.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	d.watch(8 * time.Second)
	if _, said, err := d.Nodes[0].Postern("vips"); err == nil {
		fmt.Fprintf(d.out, "\n$ postern vips\n%s\n", said)
	}
	n1, n2, n3 := d.Nodes[0], d.Nodes[1], d.Nodes[2]
	for _, step := range []struct {
		what string
		do   func() error
		for_ time.Duration
	}{
		{"n1's agent is killed (SIGKILL). Its addresses are still on its interface, but its door shuts by itself.", func() error { n1.Agent.Kill(); return nil }, 5 * time.Second},
		{"n1's agent starts again, and gets its share.", n1.Start, 4 * time.Second},
		{"n2's agent is frozen (SIGSTOP).", func() error { return n2.Agent.Signal(unix.SIGSTOP) }, 5 * time.Second},
		{"n2's agent goes on (SIGCONT). It finds out what it holds before it speaks.", func() error { return n2.Agent.Signal(unix.SIGCONT) }, 4 * time.Second},
		{"n3 is cut off etcd, not off the segment.", func() error { return d.Hub.Link(n3.Control, false) }, 5 * time.Second},
		{"n3 reaches etcd again.", func() error { return d.Hub.Link(n3.Control, true) }, 4 * time.Second},
		{"n1 is drained (postern agent drain): it gives its addresses to others.", drainDemo(n1), 2 * time.Second},
		{"Two of three etcd servers are killed: nobody can renew a lease, and all fall silent.", func() error { d.Members[0].Kill(); d.Members[1].Kill(); return nil }, 5 * time.Second},
		{"They are started again.", func() error { clear(d.last); return errors.Join(d.StartMember(0), d.StartMember(1)) }, 6 * time.Second},
	} {
		d.say(cyan, "%s", step.what)
		if err := step.do(); err != nil {
			return err
		}
		d.watch(step.for_)
	}
	return d.verdict()
}

func drainDemo(n *fence.Node) func() error {
	return func() error {
		code, said, err := n.Postern("agent", "drain")
		if err == nil && code != 0 {
			err = fmt.Errorf("postern agent drain: %d: %s", code, said)
		}
		return err
	}
}

// watch tells who begins to announce what, for a while.
func (d *clusterDemo) watch(for_ time.Duration) {
	for end := cluster.BootTime() + int64(for_); cluster.BootTime() < end; time.Sleep(50 * time.Millisecond) {
		took := map[string][]string{}
		for _, f := range d.Observer.Seen(d.read) {
			d.read++
			// Probes are sent by nobody yet.
			if by := d.NodeOf(f.Port); f.Sender.Is4() && f.Sender.As4()[2] == 1 && d.last[f.Sender] != by {
				d.last[f.Sender] = by
				took[by] = append(took[by], f.Sender.String())
			}
		}
		for _, n := range d.Nodes {
			if list := took[n.Name]; len(list) > 0 {
				slices.Sort(list)
				d.say(green, "%s announces %s", n.Name, strings.Join(slices.Compact(list), ", "))
			}
		}
	}
}

func (d *clusterDemo) verdict() error {
	holders, err := d.History()
	if err != nil {
		return err
	}
	wrong, judged := fence.Judge(d.Observer.Seen(0), d.NodeOf, holders)
	for _, w := range wrong {
		fmt.Fprintln(d.out, d.colour.in(red, w))
	}
	if len(wrong) > 0 || judged == 0 {
		return fmt.Errorf("%w: %d addresses were spoken for by a node whose successor had spoken", errDemo, len(wrong))
	}
	_, err = fmt.Fprintf(d.out, "\n%d ARP frames for the addresses crossed the segment. None came from a node whose successor had spoken.\n", judged)
	return err
}
