package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// TestLiveAgreement holds the program at a device's hook against Classify, on frames that a
// packet socket sends: POSTERN_LIVE says how many pairs of policy and frame. On every
// second policy's frames, the kernel keeps a tag beside the frame.
func TestLiveAgreement(t *testing.T) {
	pin(t)
	seed, kinds := uint64(fromEnv("POSTERN_SEED", 1)), samples(ownCorpus(t))
	h := newHook(t)
	var s tally
	for n := uint64(0); s.pairs < fromEnv("POSTERN_LIVE", 60_000); n++ {
		m := newMaker(seed, 1<<32+n, kinds, uint32(os.Getpid()))
		h.policy(t, &s, m, n%2 == 1)
		if t.Failed() {
			t.Fatalf("POSTERN_SEED=%d, policy %d", seed, n)
		}
	}
	t.Logf("seed %d: %s", seed, &s)
	s.enough(t)
}

// hook is a device of a lab, and one for what is forwarded and duplicated.
type hook struct {
	*lab.Pair
	near, sink, fd int
	push           *ebpf.Program
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{}
	var err error
	if h.Pair, err = lab.New(); err != nil {
		cannot(t, "needs root for network namespaces: "+err.Error())
	}
	t.Cleanup(h.Close)
	sink, err := h.Sink(0, "sink")
	if err != nil {
		t.Fatal(err)
	}
	h.near, h.sink = h.Ifi[0].Index, sink.Index
	g := &guarded{pair: &pair{t: t}, Pair: h.Pair}
	h.fd = g.socket(0, h.near)
	// The tag 100, as a VLAN device gives it.
	h.push, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, int32(htons(0x8100))), asm.Mov.Imm(asm.R3, 100), asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R0, actUnspec), asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.push.Close() })
	return h
}

func (h *hook) attach(t *testing.T, p *ebpf.Program) link.Link {
	t.Helper()
	var l link.Link
	if err := h.Do(0, func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: h.near, Program: p, Attach: ebpf.AttachTCXEgress})
		return err
	}); err != nil {
		cannot(t, "needs a kernel with tcx: "+err.Error())
	}
	return l
}

// policy compares the engines on one policy's frames.
func (h *hook) policy(t *testing.T, s *tally, m *maker, tagged bool) {
	p, src := s.load(t, m, Options{linear: []int{0, -1, 60}[m.IntN(3)]})
	if p == nil {
		return
	}
	defer p.engine.Close()
	p.ifindex, p.single = h.near, true
	for _, name := range []string{"out", "copies"} {
		p.there[name] = true
		if err := p.engine.SetTarget(p.fw.Policy(), name, h.sink, 0); err != nil {
			t.Fatal(err)
		}
	}
	p.change(m)
	if tagged {
		defer h.attach(t, h.push).Close()
		for i, f := range m.working {
			m.working[i] = slices.Insert(slices.Clone(f), min(12, len(f)), tag...)
		}
	}
	defer h.attach(t, p.engine.Program()).Close()
	p.ask = func(frame []byte, _ uint32) (outcome, bool) { return h.send(p, frame, m, tagged) }
	s.compare(p, m, src, 1000)
}

var tag = []byte{0x81, 0, 0, 100}

// send sends a frame and tells what became of it; of a tagged one, the kernel is given what is
// around the tag.
func (h *hook) send(p *pair, frame []byte, m *maker, tagged bool) (outcome, bool) {
	if tagged {
		if len(frame) < 18 || !slices.Equal(frame[12:16], tag) {
			return outcome{}, false
		}
		frame = slices.Concat(frame[:12], frame[16:])
	}
	if err := unix.SetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_MARK, int(p.iface.Mark)); err != nil {
		p.t.Fatal(err)
	}
	claim := []uint16{0x88cc, unix.ETH_P_IP, unix.ETH_P_ALL, unix.ETH_P_ARP, 0}[m.IntN(5)]
	err := unix.Sendto(h.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: h.near, Protocol: htons(claim)})
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		return outcome{}, false // the driver does not take it
	}
	p.compared++
	got := p.decision()
	if dropped := got.verdict == 0; dropped != (err != nil) {
		p.t.Errorf("decided %v, and sending gave %v", got, fmt.Sprint(err))
	}
	return got, true
}
