package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
)

// guarded is a pair of namespaces, the near device guarded on egress.
type guarded struct {
	*pair
	*lab.Pair
	near int
}

func guard(t testing.TB, src string, o Options) *guarded {
	t.Helper()
	pin(t)
	g := &guarded{pair: load(t, src, o)}
	var err error
	if g.Pair, err = lab.New(); err != nil {
		cannot(t, "needs root for network namespaces: "+err.Error())
	}
	t.Cleanup(g.Close)
	ifi := g.Ifi[0]
	g.near, g.ifindex = ifi.Index, ifi.Index
	g.iface = filter.Meta{Sender: g.iface.Sender, Iface: ifi.Name, HasIfaceMAC: true, IfaceMAC: [6]byte(ifi.HardwareAddr)}
	if err := g.engine.SetInterface(ifi.Index, ifi.Name, ifi.HardwareAddr, 0); err != nil {
		t.Fatal(err)
	}
	if err := g.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: ifi.Index, Program: g.engine.Program(), Attach: ebpf.AttachTCXEgress})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}); err != nil {
		cannot(t, "needs a kernel with tcx: "+err.Error())
	}
	return g
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// socket opens a packet socket on a device of a namespace.
func (g *guarded) socket(ns, ifindex int) (fd int) {
	g.t.Helper()
	if err := g.Do(ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifindex})
	}); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// receive waits for a frame with the wanted last bytes.
func receive(fd int, tail []byte) []byte {
	b := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return nil
		}
		if bytes.HasSuffix(b[:n], tail) {
			return b[:n]
		}
	}
}

var tail = []byte("postern!")

func tailed(x byte) []byte {
	b := gratuitous(x, 1)
	copy(b[52:], tail)
	return b
}

// TestLiveCorpus holds the live hook against Classify, for frames as they are sent,
// and with a tag that the kernel keeps beside the frame.
func TestLiveCorpus(t *testing.T) {
	const src = `policy: p
rules:
  - {name: head, match: 'frame[10:6] & 00:00:81:00:0f:ff == 00:00:81:00:00:64', verdict: {mark: 1}}
  - {name: tag, match: vlan.id == 100 && vlan.priority == 0, verdict: {mark: 2}}
  - {name: mine, match: iface.mac != eth.src && frame.len > 70, verdict: {mark: 3}}
  - {name: across, match: 'frame[14:8] == 00:64:08:00:45:00:00:54 || frame[2:3] > 80:00:00 && frame[-40:30] > 20:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00', verdict: drop}
  - {name: server, match: 'udp.srcport == 67 && dhcp.option.dhcp in {2, 5, 6}', verdict: drop}
  - {name: rest, match: eth.src.ig == 0, verdict: accept}
malformed: match
`
	g := guard(t, src, Options{})
	fd := g.socket(0, g.near)
	for _, path := range []struct {
		name string
		tag  []byte
	}{{"plain", nil}, {"a tag beside the frame", []byte{0x81, 0, 0, 100}}} {
		if path.tag != nil {
			g.pushTag()
		}
		sent, bad := 0, 0
		for _, f := range corpus(t) {
			if len(f) > 1514 || len(f) < 14 {
				continue
			}
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: g.near, Protocol: htons(0x88cc)}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				continue // the driver does not take it
			}
			sent++
			whole := f
			if path.tag != nil {
				whole = append(append(append([]byte(nil), f[:12]...), path.tag...), f[12:]...)
			}
			if got, want := g.decision(), g.want(whole, 0); got != want {
				t.Errorf("%s: kernel %v, Classify %v\n%x", path.name, got, want, whole)
				if bad++; bad > 5 {
					t.FailNow()
				}
			}
		}
		t.Logf("%s: %d frames sent and compared", path.name, sent)
		if sent < 10_000 {
			t.Errorf("only %d frames were sent", sent)
		}
	}
}

// pushTag has a program before ours put the tag 100 into skb->vlan_tci, as a VLAN
// device does.
func (g *guarded) pushTag() {
	g.t.Helper()
	push, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, int32(htons(0x8100))), asm.Mov.Imm(asm.R3, 100), asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R0, actUnspec), asm.Return(),
	}})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { push.Close() })
	if err := g.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: g.near, Program: push, Attach: ebpf.AttachTCXEgress, Anchor: link.Head()})
		if err == nil {
			g.t.Cleanup(func() { l.Close() })
		}
		return err
	}); err != nil {
		g.t.Fatal(err)
	}
}

// TestEffects: what rules do to frames arrives as Decision says.
func TestEffects(t *testing.T) {
	const src = `policy: p
rules:
  - {name: copy, match: arp.src.proto_ipv4 == 192.0.2.1, verdict: {duplicate: sink}}
  - {name: write, match: 'arp.src.proto_ipv4 in {192.0.2.1, 192.0.2.2}', verdict: {set: {eth.dst: '02:00:00:00:00:aa', arp.dst.proto_ipv4: 192.0.2.77}}}
  - {name: lost, match: ip, verdict: {set: {arp.src.hw_mac: '02:00:00:00:00:aa'}}}
  - {name: away, match: arp.src.proto_ipv4 == 192.0.2.2, verdict: {forward: sink}}
  - {name: nowhere, match: arp.src.proto_ipv4 == 192.0.2.3, verdict: {forward: gone}}
  - {name: told, match: arp.src.proto_ipv4 == 192.0.2.1, verdict: accept, log: true}
  - {name: watched, match: arp.src.proto_ipv4 == 192.0.2.4, verdict: drop, mode: audit}
  - {name: quiet, match: arp.src.proto_ipv4 == 192.0.2.5 || ip, verdict: accept}
`
	for _, linear := range []int{12, -1} {
		t.Run(fmt.Sprint(linear), func(t *testing.T) { testEffects(t, guard(t, src, Options{linear: linear})) })
	}
}

func testEffects(t *testing.T, g *guarded) {
	var sink *net.Interface
	var err error
	if sink, err = g.Sink(0, "sink"); err != nil {
		t.Fatal(err)
	}
	if err := g.engine.SetTarget(g.fw.Policy(), "sink", sink.Index, 0); err != nil {
		t.Fatal(err)
	}
	events, err := g.engine.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	fd, far, aside := g.socket(0, g.near), g.socket(1, g.Ifi[1].Index), g.socket(0, sink.Index)
	written := func(b []byte) bool {
		return bytes.Equal(b[:6], []byte{2, 0, 0, 0, 0, 0xaa}) && bytes.Equal(b[38:42], []byte{192, 0, 2, 77})
	}
	ip := make([]byte, 60)
	copy(ip, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00\x45\x00\x00\x2e\x00\x00\x00\x00\x40\xfd\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02")
	copy(ip[52:], tail)
	for _, c := range []struct {
		name                string
		frame               []byte
		arrives, aside, set bool
		event               string
		reason              firewall.Reason
		audited, refused    bool
	}{
		{name: "copied, then rewritten", frame: tailed(1), arrives: true, aside: true, set: true, event: "told", reason: firewall.ReasonRule},
		{name: "rewritten, then forwarded", frame: tailed(2), aside: true, set: true},
		{name: "forwarded to nowhere", frame: tailed(3), event: "nowhere", reason: firewall.ReasonUnsendable, refused: true},
		{name: "audited", frame: tailed(4), arrives: true, event: "watched", reason: firewall.ReasonRule, audited: true},
		{name: "accepted", frame: tailed(5), arrives: true},
		{name: "default", frame: tailed(6), event: "", reason: firewall.ReasonDefault, refused: true},
		{name: "nothing to write", frame: ip, event: "quiet", reason: firewall.ReasonUnsendable, refused: true},
	} {
		err := unix.Sendto(fd, c.frame, 0, &unix.SockaddrLinklayer{Ifindex: g.near})
		if refused := errors.Is(err, unix.ENOBUFS); refused != c.refused || err != nil && !refused {
			t.Errorf("%s: sending: %v", c.name, err)
		}
		if b := receive(far, tail); (b != nil) != c.arrives || b != nil && written(b) != c.set {
			t.Errorf("%s: arrived: %x", c.name, b)
		}
		b := receive(aside, tail)
		if (b != nil) != c.aside {
			t.Errorf("%s: at the sink: %x", c.name, b)
		}
		if b != nil && written(b) != (c.set && !c.arrives) { // copied before it was rewritten
			t.Errorf("%s: at the sink: %x", c.name, b)
		}
		var ev Event
		if c.event == "" && c.reason == 0 {
			continue
		}
		events.SetDeadline(time.Now().Add(time.Second))
		if err := events.Read(&ev); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		name := ""
		if n := ev.RuleIndex; n >= 0 {
			name = g.fw.Policy().Rules[n].Name
		}
		comm, _ := os.ReadFile("/proc/thread-self/comm")
		if name != c.event || ev.Reason != c.reason || ev.Audited != c.audited || ev.Len != 60 || !bytes.Equal(ev.Frame, c.frame) && !c.set && c.name != "nothing to write" ||
			ev.Ifindex != g.near || !ev.HasSender || ev.Sender.PID != uint32(os.Getpid()) || ev.Sender.UID != uint32(os.Getuid()) ||
			ev.Cookie == 0 || ev.Sender.Comm != string(bytes.TrimSpace(comm)) {
			t.Errorf("%s: event %+v (rule %s), comm %s", c.name, ev, name, comm)
		}
	}
	events.SetDeadline(time.Now().Add(50 * time.Millisecond))
	var ev Event
	if err := events.Read(&ev); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one event too many: %+v %v", ev, err)
	}
}

// TestSenders: the fields of the sender, and whose frames are judged.
func TestSenders(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	src := fmt.Sprintf(`policy: p
rules:
  - {name: other, match: 'sender.uid != %d || sender.pid != %d', verdict: drop}
  - {name: longer, match: 'sender.comm > "%[3]s" || sender.comm == "%[3]sx"', verdict: drop}
  - {name: me, match: 'sender.comm in {"x", "%[3]s"} && sender.uid == %[1]d', verdict: accept}
`, os.Getuid(), os.Getpid(), bytes.TrimSpace(comm))
	pin(t)
	// The name is the thread's; all of them have the process's when it starts.
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&append(bytes.TrimSpace(comm), 0)[0])), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	g := guard(t, src, Options{})
	fd := g.socket(0, g.near)
	if err := unix.Sendto(fd, tailed(1), 0, &unix.SockaddrLinklayer{Ifindex: g.near}); err != nil {
		t.Error(err)
	}
	if d := g.decision(); d.rule != 2 {
		t.Errorf("own frame: %v", d)
	}
	counters, err := g.engine.Counters(g.fw.Policy())
	if err != nil {
		t.Fatal(err)
	}
	// Neighbour discovery of the near device's own stack is not judged.
	if counters[3].Frames != 0 {
		t.Errorf("%d frames that no packet socket sent were judged", counters[3].Frames)
	}
}
