package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// act is something that is done now and then, by the clock on the wall.
type act struct {
	name string
	x    int
	// do does it, in a world that is made for it, and says how long it took.
	do func(w *world) (time.Duration, error)
	// memory says that the memory is told too, of what is in force then.
	memory bool
}

// controlling is how long the control plane takes.
func controlling(b *bench) error {
	postern, err := buildPostern()
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(postern))
	var acts []act
	for _, n := range pick(b, []ruleset{10, 1000, 10_000}, []ruleset{10, 10_000}) {
		for _, hook := range []string{"tc", "gate"} {
			policy := n.postern(hook, "sink")
			acts = append(acts, act{fmt.Sprintf("put %s rules in force by %s", thousands(int(n)), hook), int(n), clocked(func(w *world) error { return w.guard(policy) }), true},
				act{"replace them", int(n), func(w *world) (time.Duration, error) {
					if err := w.guard(policy); err != nil {
						return 0, err
					}
					return clocked(func(w *world) error { return w.guard(policy) })(w)
				}, false})
		}
	}
	for _, n := range pick(b, []ruleset{1, 100_000, 1_000_000}, []ruleset{1, 100_000}) {
		elements := n.elements()
		acts = append(acts, act{fmt.Sprintf("add %s elements to a set", thousands(int(n))), int(n), func(w *world) (time.Duration, error) {
			if err := w.guard(setPolicy("sink")); err != nil {
				return 0, err
			}
			return clocked(func(w *world) error { return w.AddToSet("vips", 0, elements...) })(w)
		}, true})
	}
	acts = append(acts,
		act{"postern apply: from its start to the first frame refused", 0, func(w *world) (time.Duration, error) { return w.firstRefused(postern) }, false},
		act{"a new interface, by tc: from its appearance to the first frame refused", 0, func(w *world) (time.Duration, error) { return w.appearance("tc") }, false},
		act{"a new interface, by the gate: the same", 0, func(w *world) (time.Duration, error) { return w.appearance("gate") }, false},
	)
	about := section{ID: "control", Title: "The control plane", Text: "By the clock on the wall, in a namespace that is made for each time. Memory is that of all maps and programs then."}
	for _, a := range acts {
		r, err := a.measure(pick(b, 7, 1))
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		about.Results = append(about.Results, r)
	}
	b.report.Sections = append(b.report.Sections, about)
	return nil
}

// clocked makes do of something without preparation.
func clocked(fn func(w *world) error) func(w *world) (time.Duration, error) {
	return func(w *world) (time.Duration, error) {
		start := time.Now()
		err := fn(w)
		return time.Since(start), err
	}
}

func (a act) measure(times int) (result, error) {
	var costs, memory []float64
	for range times {
		w, err := newWorld()
		if err != nil {
			return result{}, err
		}
		took, err := a.do(w)
		if a.memory {
			memory = append(memory, float64(w.memory()))
		}
		if err := errors.Join(err, w.Close()); err != nil {
			return result{}, err
		}
		costs = append(costs, float64(took))
	}
	r := result{Name: a.name, X: a.x, Cost: spreadOf(costs), Turns: times}
	if a.memory {
		r.Note = fmt.Sprintf("%.1f MiB in the kernel", spreadOf(memory).Median/(1<<20))
	}
	return r, nil
}

// memory is what the kernel says that the world's maps and programs take, in bytes.
func (w *world) memory() (sum uint64) {
	_ = filepath.WalkDir(w.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
			defer m.Close()
			if info, err := m.Info(); err == nil {
				n, _ := info.Memlock()
				sum += n
			}
		} else if p, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
			defer p.Close()
			if info, err := p.Info(); err == nil {
				n, _ := info.Memlock()
				sum += n
			}
		}
		return nil
	})
	return sum
}

// buildPostern builds the command.
func buildPostern() (string, error) {
	dir, err := os.MkdirTemp("", "bench-postern-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "postern")
	if out, err := exec.Command("go", "build", "-o", name, "github.com/postern-fw/postern/cmd/postern").CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("building postern: %w: %s", err, out)
	}
	return name, nil
}

// firstRefused runs postern apply and sends until a frame is refused.
func (w *world) firstRefused(postern string) (took time.Duration, err error) {
	policy, err := os.CreateTemp("", "bench-*.yaml")
	if err != nil {
		return 0, err
	}
	defer os.Remove(policy.Name())
	if _, err := policy.WriteString(ruleset(10).postern("tc", "sink")); err != nil {
		return 0, err
	}
	if err := policy.Close(); err != nil {
		return 0, err
	}
	err = w.Do(0, func() error {
		// Its pins go to a bpffs of this thread's own mount namespace, which ends with it.
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"); err != nil {
			return err
		}
		s, err := openSocket(w.dev.Index, ruleset(10).refused())
		if err != nil {
			return err
		}
		defer s.Close()
		var said strings.Builder
		cmd := exec.Command(postern, "apply", "-f", policy.Name())
		cmd.Stdout, cmd.Stderr = &said, &said
		start := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		refused := s.untilRefused(start)
		took = time.Since(start)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("postern apply: %w: %s", err, said.String())
		}
		return refused
	})
	return took, err
}

// untilRefused sends until a frame is refused, for half a minute at most.
func (s socket) untilRefused(start time.Time) error {
	for time.Since(start) < 30*time.Second {
		switch err := unix.Send(s.fd, s.frame, 0); {
		case errors.Is(err, unix.ENOBUFS):
			return nil
		case err != nil:
			return err
		}
		time.Sleep(50 * time.Microsecond)
	}
	return errors.New("no frame was refused in 30 s")
}

// appearance guards devices that are not there yet, makes one, and sends by it until a frame is
// refused, of which a sender hears at the gate with PACKET_QDISC_BYPASS.
func (w *world) appearance(hook string) (took time.Duration, err error) {
	if err := w.guard(fmt.Sprintf("policy: later\nhook: %s\nguard: [{interfaces: [sink, 'later*']}]\nrules: []\n", hook)); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	followed := make(chan error, 1)
	go func() { followed <- w.Follow(ctx, slog.New(slog.DiscardHandler)) }()
	time.Sleep(100 * time.Millisecond) // until it listens
	err = w.Do(0, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "later0"
		link := &netlink.Ifb{LinkAttrs: attrs}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		start := time.Now()
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		s, err := openSocket(link.Attrs().Index, ruleset(10).refused())
		if err != nil {
			return err
		}
		defer s.Close()
		if hook == "gate" {
			if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return err
			}
		}
		err = s.untilRefused(start)
		took = time.Since(start)
		return err
	})
	cancel()
	return took, errors.Join(err, <-followed)
}
