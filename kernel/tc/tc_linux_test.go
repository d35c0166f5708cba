package tc

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

// The test binary is its own child, which installs and ends.
func TestMain(m *testing.M) {
	if os.Getenv("TC_CHILD") == "" {
		os.Exit(m.Run())
	}
	if err := children[os.Getenv("TC_CHILD")](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var children = map[string]func() error{"install": installAndEnd, "unprivileged": unprivileged, "old kernel": withoutTCX}

// installAndEnd installs a judge that refuses kind 1.
func installAndEnd() error {
	a, err := fromEnv()
	if err != nil {
		return err
	}
	j, err := makeJudge(1, 1)
	if err != nil {
		return err
	}
	return a.Install(j.Program)
}

// fromEnv is the attachment that a child is told of, in the namespace of descriptor 3.
func fromEnv() (Attachment, error) {
	a := Attachment{Dir: os.Getenv("TC_DIR"), NetNS: 3}
	_, err := fmt.Sscan(os.Getenv("TC_ATTACHMENT"), &a.Interface, &a.Direction, &a.Kind)
	return a, err
}

// child is not started yet.
func child(what string, a Attachment) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	// The race detector has each child sleep before it ends, unless it is told not to.
	cmd.Env = append(os.Environ(), "TC_CHILD="+what, "GORACE=atexit_sleep_ms=0", "TC_DIR="+a.Dir,
		fmt.Sprintf("TC_ATTACHMENT=%d %d %d", a.Interface, a.Direction, a.Kind))
	cmd.Stderr = os.Stderr
	return cmd
}

// installers starts that many children that install at once, and waits for them.
func installers(t testing.TB, a Attachment, n int) {
	t.Helper()
	ns, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", a.NetNS))
	must(t, err)
	defer ns.Close()
	var cmds []*exec.Cmd
	for range n {
		cmd := child("install", a)
		cmd.ExtraFiles = []*os.File{ns}
		must(t, cmd.Start())
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("a process that installs: %v", err)
		}
	}
}

// each runs a test for both kinds and both directions.
func each(t *testing.T, fn func(t *testing.T, r room, a Attachment)) {
	for _, k := range []Kind{TCX, Clsact} {
		for _, d := range []Direction{Egress, Ingress} {
			t.Run(k.String()+"/"+d.String(), func(t *testing.T) {
				inRoom(t, func(t *testing.T, r room) { fn(t, r, r.way(k, d)) })
			})
		}
	}
}

// inForce is the state of an attachment that is in force, alone.
func (a Attachment) inForce(name string, p ebpf.ProgramID) State {
	return State{Name: name, Pinned: a.Kind == TCX, Attached: true, Kind: a.Kind, Program: p}
}

// listed is how List names an attachment.
func (a Attachment) listed() Attachment {
	a.Kind = Auto
	return a
}

func status(t testing.TB, a Attachment) State {
	t.Helper()
	s, err := a.Status()
	must(t, err)
	return s
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func id(t testing.TB, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	must(t, err)
	id, ok := info.ID()
	if !ok {
		t.Fatal("the program has no id")
	}
	return id
}

type arrived = [kinds][stamps]int

func TestInstall(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		name := r.Ifi[a.Direction].Name
		same(t, "before", r.passed(t, 10), arrived{1: {10}, 2: {10}})
		same(t, "status before", status(t, a), State{Name: name})
		one, two := newJudge(t, 1, 1), newJudge(t, 2, 2)
		must(t, a.Install(one.Program))
		same(t, "status", status(t, a), a.inForce(name, id(t, one.Program)))
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})
		must(t, a.Install(two.Program)) // adopts
		must(t, a.Install(two.Program)) // changes nothing
		same(t, "status", status(t, a), a.inForce(name, id(t, two.Program)))
		same(t, "kind 2 refused", r.passed(t, 10), arrived{1: {2: 10}})
		if n := two.judged(t); n != 20 {
			t.Errorf("the program saw %d frames of 20", n)
		}
		list, err := List(a.Dir, a.NetNS)
		must(t, err)
		same(t, "list", list, []Attachment{a.listed()})
		must(t, a.Remove())
		same(t, "removed", r.passed(t, 10), arrived{1: {10}, 2: {10}})
		same(t, "status after", status(t, a), State{Name: name})
		must(t, a.Remove())
		list, err = List(a.Dir, a.NetNS)
		must(t, err)
		same(t, "empty list", list, []Attachment(nil))
	})
}

func TestOutlivesTheProcess(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		installers(t, a, 1)
		if s := status(t, a); !s.Attached {
			t.Errorf("status: %+v", s)
		}
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})
		two := newJudge(t, 2, 2)
		must(t, a.Install(two.Program))
		same(t, "adopted", r.passed(t, 10), arrived{1: {2: 10}})
		must(t, a.Remove())
		same(t, "removed", r.passed(t, 10), arrived{1: {10}, 2: {10}})
	})
}

func TestReplaceUnderFullRate(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		sent, judged := underFullRate(t, r, a.Install)
		if a.Direction == Egress && judged != sent {
			t.Errorf("%d frames sent, %d judged", sent, judged)
		}
	})
}

// underFullRate replaces one program by another, again and again, while frames are sent. Each
// refuses one kind: nothing may arrive unjudged, nor let go by the program that refuses it.
func underFullRate(t *testing.T, r room, install func(*ebpf.Program) error) (sent, judged int) {
	judges := []judge{newJudge(t, 1, 1), newJudge(t, 2, 2)}
	must(t, install(judges[0].Program))
	o := observe(t, r)
	var stop atomic.Bool
	var n atomic.Int64
	var wg sync.WaitGroup
	for kind := range byte(2) {
		send := r.sender(t)
		wg.Go(func() {
			for !stop.Load() {
				if err := send(kind + 1); err != nil {
					t.Errorf("send: %v", err)
					return
				}
				n.Add(1)
			}
		})
	}
	const replacements = 200
	for i := range replacements {
		for before := n.Load(); n.Load() < before+100 && !t.Failed(); time.Sleep(100 * time.Microsecond) {
		}
		if err := install(judges[(i+1)%2].Program); err != nil {
			t.Errorf("replacement %d: %v", i, err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	got := o.counts()
	judged = judges[0].judged(t) + judges[1].judged(t)
	t.Logf("%d frames sent, %d judged, arrived by kind and stamp: %v", n.Load(), judged, got)
	for kind, by := range got {
		if by[0] != 0 || kind > 0 && kind < stamps && by[kind] != 0 {
			t.Errorf("kind %d: %d arrived unjudged, %d let go by the one that refuses them", kind, by[0], by[kind])
		}
	}
	if got[1][2] == 0 || got[2][1] == 0 {
		t.Error("one of the programs never judged: that proves nothing")
	}
	return int(n.Load()), judged
}
