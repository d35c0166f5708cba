package tc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// eachDirection runs a test that is about both kinds.
func eachDirection(t *testing.T, fn func(t *testing.T, r room, a Attachment)) {
	for _, d := range []Direction{Egress, Ingress} {
		t.Run(d.String(), func(t *testing.T) {
			inRoom(t, func(t *testing.T, r room) { fn(t, r, r.way(Auto, d)) })
		})
	}
}

// as is the same attachment, to be of another kind.
func (a Attachment) as(k Kind) Attachment {
	a.Kind = k
	return a
}

func TestAuto(t *testing.T) {
	eachDirection(t, func(t *testing.T, r room, a Attachment) {
		name := r.Ifi[a.Direction].Name
		one, two := newJudge(t, 1, 1), newJudge(t, 2, 2)
		must(t, a.Install(one.Program))
		same(t, "where nothing is in force", status(t, a), a.as(TCX).inForce(name, id(t, one.Program)))
		for _, k := range []Kind{Clsact, TCX} {
			must(t, a.as(k).Install(one.Program))
			same(t, "moved", status(t, a), a.as(k).inForce(name, id(t, one.Program)))
			same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})
			must(t, a.Install(two.Program))
			same(t, "adopted", status(t, a), a.as(k).inForce(name, id(t, two.Program)))
			same(t, "alone", order(t, a), []ebpf.ProgramID{id(t, two.Program)})
			same(t, "kind 2 refused", r.passed(t, 10), arrived{1: {2: 10}})
			list, err := List(a.Dir, a.NetNS)
			must(t, err)
			same(t, "list", list, []Attachment{a})
		}
		must(t, a.as(Clsact).Remove()) // finds either kind
		same(t, "removed", status(t, a), State{Name: name})
		same(t, "nothing left", len(order(t, a)), 0)
	})
}

func TestMoveUnderFullRate(t *testing.T) {
	eachDirection(t, func(t *testing.T, r room, a Attachment) {
		i := 0
		sent, judged := underFullRate(t, r, func(p *ebpf.Program) error {
			i++
			return a.as([]Kind{TCX, Clsact, Auto}[i%3]).Install(p)
		})
		if a.Direction == Egress && judged < sent {
			t.Errorf("%d frames sent, %d judged", sent, judged)
		}
	})
}

// A process that ends between the two steps of a move leaves both kinds.
func TestMoveCutShort(t *testing.T) {
	eachDirection(t, func(t *testing.T, r room, a Attachment) {
		one, two := newJudge(t, 1, 1), newJudge(t, 2, 2)
		behind := a.as(Clsact)
		behind.Dir = "" // sees no pin
		for _, k := range []Kind{Auto, TCX, Clsact} {
			must(t, a.as(TCX).Install(one.Program))
			must(t, behind.Install(two.Program))
			want := a.as(TCX).inForce(r.Ifi[a.Direction].Name, id(t, one.Program))
			want.Behind = id(t, two.Program)
			same(t, "both", status(t, a), want)
			same(t, "both refuse", r.passed(t, 10), arrived{})
			list, err := List(a.Dir, a.NetNS)
			must(t, err)
			same(t, "list", list, []Attachment{a})
			must(t, a.as(k).Install(two.Program))
			same(t, "one is left", order(t, a), []ebpf.ProgramID{id(t, two.Program)})
			same(t, "kind 2 refused", r.passed(t, 10), arrived{1: {2: 10}})
		}
		must(t, a.as(TCX).Install(one.Program))
		must(t, behind.Install(two.Program))
		must(t, a.Remove())
		same(t, "nothing left", len(order(t, a)), 0)
	})
}

// The programs of tcx are asked before the filters of clsact, and -1 leads from one to the other.
func TestOneKindLeadsToTheOther(t *testing.T) {
	eachDirection(t, func(t *testing.T, r room, a Attachment) {
		one := newJudge(t, 1, 1)
		tcx := foreign(t, a.as(TCX), false)
		filter := foreign(t, a.as(Clsact), false)
		must(t, a.as(Clsact).Install(one.Program))
		same(t, "order", order(t, a), []ebpf.ProgramID{id(t, tcx.Program), id(t, one.Program), id(t, filter.Program)})
		want := a.as(Clsact).inForce(r.Ifi[a.Direction].Name, id(t, one.Program))
		want.Before = []ebpf.ProgramID{id(t, tcx.Program)}
		same(t, "by clsact", status(t, a), want)
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {3: 10}})
		must(t, a.as(TCX).Install(one.Program))
		same(t, "order", order(t, a), []ebpf.ProgramID{id(t, one.Program), id(t, tcx.Program), id(t, filter.Program)})
		same(t, "by tcx", status(t, a), a.as(TCX).inForce(r.Ifi[a.Direction].Name, id(t, one.Program)))
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {3: 10}})
		if one.judged(t) != 40 || tcx.judged(t) != 30 || filter.judged(t) != 20 {
			t.Errorf("ours saw %d frames of 40, tcx's %d of 30, clsact's %d of 20", one.judged(t), tcx.judged(t), filter.judged(t))
		}
	})
}

// A redirected frame goes out of the other device, as it does behind the gate, and no further
// program of the first is asked.
func TestRedirect(t *testing.T) {
	for _, k := range []Kind{TCX, Clsact} {
		t.Run(k.String(), func(t *testing.T) {
			inRoom(t, func(t *testing.T, r room) {
				sink, err := r.Sink(0, "sink")
				must(t, err)
				near := r.Ifi[0].Index
				p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
					asm.Mov.Imm(asm.R1, int32(near)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return()}})
				must(t, err)
				defer p.Close()
				r.Ifi[0] = sink // where frames are sent
				a := r.way(k, Egress)
				behind := foreign(t, a, false)
				same(t, "before", r.passed(t, 10), arrived{})
				must(t, a.Install(p))
				same(t, "redirected", r.passed(t, 10), arrived{1: {10}, 2: {10}})
				if n := behind.judged(t); n != 20 {
					t.Errorf("the program behind was asked about %d frames, and 20 were not redirected", n)
				}
			})
		})
	}
}

func TestWithoutTCX(t *testing.T) {
	eachDirection(t, func(t *testing.T, r room, a Attachment) {
		name := r.Ifi[a.Direction].Name
		homeless := a
		homeless.Dir = ""
		ns, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", a.NetNS))
		must(t, err)
		defer ns.Close()
		cmd := child("old kernel", homeless)
		cmd.ExtraFiles = []*os.File{ns}
		must(t, cmd.Run())
		s := status(t, a)
		same(t, "status", s, a.as(Clsact).inForce(name, s.Program))
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})
		two := newJudge(t, 2, 2)
		must(t, a.Install(two.Program))
		same(t, "adopted", status(t, a), a.as(Clsact).inForce(name, id(t, two.Program)))
		same(t, "kind 2 refused", r.passed(t, 10), arrived{1: {2: 10}})
	})
}

// withoutTCX is a process on a kernel that has clsact only, as the process can see: bpf(2)
// does not know the commands that tcx takes. It leaves a judge that refuses kind 1.
func withoutTCX() error {
	if err := forbid(unix.SYS_BPF, unix.BPF_LINK_CREATE, unix.BPF_PROG_QUERY); err != nil {
		return err
	}
	a, err := fromEnv()
	if err != nil {
		return err
	}
	j, err := makeJudge(1, 1)
	if err != nil {
		return err
	}
	for what, err := range map[string]error{"Probe": TCX.Probe(), "Install": a.as(TCX).Install(j.Program)} {
		if !errors.Is(err, ErrNotSupported) {
			return fmt.Errorf("%s of tcx: %w", what, err)
		}
	}
	if err := errors.Join(Clsact.Probe(), Probe(), a.Remove()); err != nil {
		return fmt.Errorf("without tcx and bpffs: %w", err)
	}
	for range 2 {
		if err := a.Install(j.Program); err != nil {
			return err
		}
	}
	s, err := a.Status()
	if err != nil || s.Kind != Clsact {
		return fmt.Errorf("status: %+v, %w", s, err)
	}
	list, err := List(a.Dir, a.NetNS)
	if err != nil || !slices.Equal(list, []Attachment{a}) {
		return fmt.Errorf("list: %v, %w", list, err)
	}
	return nil
}

// forbid has a system call answer EINVAL to some of its commands, in the whole process.
func forbid(call uint32, commands ...uint32) error {
	const number, argument = 0, 16 // struct seccomp_data
	insns := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jt: 1},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: argument},
	}
	for _, c := range commands {
		insns = append(insns,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: c, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)})
	}
	insns = append(insns, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

func TestKindsHaveNames(t *testing.T) {
	for k, want := range map[Kind]string{Auto: "auto", TCX: "tcx", Clsact: "clsact", 3: "Kind(3)"} {
		same(t, "name", k.String(), want)
	}
	err := Attachment{Interface: 1, Kind: 3}.Install(nil)
	if err == nil || !strings.Contains(err.Error(), "neither auto nor tcx nor clsact") {
		t.Errorf("an unknown kind: %v", err)
	}
}
