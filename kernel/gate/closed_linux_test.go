package gate

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// Without its judge, or without the inspection device, nothing that should be judged passes.
func TestFailsClosed(t *testing.T) {
	p, g := near(t)
	far := receive(t, p, p.Ifi[1].Index)
	install(t, g, Device{Name: "near"})
	refused := func(when string) {
		t.Helper()
		for _, bypass := range []bool{false, true} {
			must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0x88b5, bypass, p.Ifi[0].Index, 5, 64) }))
		}
		if n := far.count(0); n != 0 {
			t.Errorf("%s: %d of 10 frames passed", when, n)
		}
	}
	refused("before a program is attached")
	i := inspect(t, p, g)
	i.letGo(true)
	must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0x88b5, true, p.Ifi[0].Index, 5, 64) }))
	if n := far.count(5); n != 5 {
		t.Errorf("%d of 5 frames passed a program that lets them go", n)
	}
	must(t, i.link.Close())
	refused("after the program")

	h := handle(t, p, 0)
	must(t, h.LinkSetDown(linkByName(t, h, g.Name)))
	must(t, h.LinkSetUp(linkByName(t, h, g.Name)))
	refused("after the inspection device was down")
	must(t, h.LinkDel(linkByName(t, h, g.Name)))
	refused("without the inspection device")
	if s := status(t, g); s.Inspection != 0 || len(s.Guarded()) != 0 || !strings.Contains(s.Devices[0].Fault, "no inspection device") {
		t.Errorf("%+v", s)
	}
	i = inspect(t, p, g) // makes a new one
	if s := status(t, g); len(s.Guarded()) != 0 || !strings.Contains(s.Devices[0].Fault, "not ours for the inspection device") {
		t.Errorf("with another inspection device: %+v", s)
	}
	refused("with another inspection device")
	install(t, g, Device{Name: "near"})
	i.letGo(true)
	must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0x88b5, true, p.Ifi[0].Index, 5, 64) }))
	if n := far.count(5); n != 5 {
		t.Errorf("installed again: %d of 5 frames passed", n)
	}
	must(t, g.Remove())
	must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0x88b5, true, p.Ifi[0].Index, 5, 64) }))
	if n := far.count(5); n != 5 {
		t.Errorf("removed: %d of 5 frames passed", n)
	}
}

// Frames longer than an ifb's own MTU.
func TestJumboFrames(t *testing.T) {
	p, g := near(t)
	must(t, p.Do(0, func() error { return vnl.LinkSetMTU(linkByName(t, handle(t, p, 0), "near"), 9000) }))
	must(t, p.Do(1, func() error { return vnl.LinkSetMTU(linkByName(t, handle(t, p, 1), "far"), 9000) }))
	i := inspect(t, p, g)
	i.letGo(true)
	install(t, g, Device{Name: "near"})
	far := receive(t, p, p.Ifi[1].Index)
	must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0x88b5, true, p.Ifi[0].Index, 5, 9014) }))
	if got, seen := far.count(5), i.seen(p.Ifi[0].Index); got != 5 || seen != 5 {
		t.Errorf("of 5 frames %d were inspected, %d arrived", seen, got)
	}
}

func addresses(t *testing.T, p *lab.Pair) {
	t.Helper()
	for i, address := range []string{"192.0.2.1/24", "192.0.2.2/24"} {
		h := handle(t, p, i)
		addr, err := vnl.ParseAddr(address)
		must(t, err)
		must(t, h.AddrAdd(linkByName(t, h, p.Ifi[i].Name), addr))
	}
}

// The IP stack's frames are inspected for senders: all only; its ARP in any case, or the
// datagrams would not arrive.
func TestIPStack(t *testing.T) {
	p, g := near(t)
	addresses(t, p)
	i := inspect(t, p, g)
	far := receive(t, p, p.Ifi[1].Index)
	datagram := markedFrame(100)
	send := func() {
		t.Helper()
		must(t, p.Do(0, func() error {
			c, err := net.ListenPacket("udp4", "")
			if err != nil {
				return err
			}
			defer c.Close()
			for range 5 {
				if _, err := c.WriteTo(datagram, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 9}); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, tt := range []struct {
		senders       Senders
		letGo         bool
		arrived, seen int
	}{{PacketSockets, false, 5, 0}, {All, true, 5, 5}, {All, false, 0, 5}} {
		install(t, g, Device{Name: "near", Senders: tt.senders})
		i.letGo(tt.letGo)
		i.seen(p.Ifi[0].Index)
		send()
		if got, seen := far.count(tt.arrived), i.seen(p.Ifi[0].Index); got != tt.arrived || seen != tt.seen {
			t.Errorf("%v, let go %t: %d arrived, want %d; %d inspected, want %d", tt.senders, tt.letGo, got, tt.arrived, seen, tt.seen)
		}
	}
}

// TCP's super-frames survive the detour.
func TestTCPThroughTheFunnel(t *testing.T) {
	p, g := near(t)
	addresses(t, p)
	inspect(t, p, g).letGo(true)
	install(t, g, Device{Name: "near", Senders: All})
	var l net.Listener
	must(t, p.Do(1, func() (err error) { l, err = net.Listen("tcp", "192.0.2.2:0"); return err }))
	defer l.Close()
	const size = 16 << 20
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		got <- n
	}()
	must(t, p.Do(0, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(make([]byte, size))
		return err
	}))
	select {
	case n := <-got:
		if n != size {
			t.Errorf("%d bytes of %d", n, size)
		}
	case <-time.After(20 * time.Second):
		t.Error("no end of the stream")
	}
}

// What others made stays as it is, whatever its name.
func TestForeign(t *testing.T) {
	p, g := near(t)
	dev := Device{Name: "near"}
	other := Gate{Name: "other", Owner: "someone else", NetNS: g.NetNS}
	must(t, other.Install(Config{Devices: []Device{dev}, Priority: 7}))
	before := status(t, other)
	install(t, g, dev)
	install(t, g, dev)
	must(t, g.Remove())
	if after := status(t, other); len(after.Devices) != 1 || after.Inspection != before.Inspection || after.Devices[0].Fault != "" {
		t.Errorf("the neighbour was %+v, is %+v", before, after)
	}

	same := Gate{Name: "other", Owner: g.Owner, NetNS: g.NetNS}
	_, statusErr := same.Status()
	for call, err := range map[string]error{"Install": same.Install(Config{Devices: []Device{dev}}), "Remove": same.Remove(), "Status": statusErr} {
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "table netdev other") {
			t.Errorf("%s of another's table: %v", call, err)
		}
	}
	if after := status(t, other); after.Inspection != before.Inspection || len(after.Guarded()) != 1 {
		t.Errorf("the other was %+v, is %+v", before, after)
	}

	_, err := p.Sink(0, g.Name)
	must(t, err)
	if err := g.Install(Config{Devices: []Device{dev}}); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "interface postern") {
		t.Errorf("another's device: %v", err)
	}
	if s := status(t, g); s.Installed || s.Inspection != 0 {
		t.Errorf("it was refused, and left %+v", s)
	}
}

func TestStatusSeesTampering(t *testing.T) {
	_, g := near(t)
	dev := Device{Name: "near"}
	for name, tt := range map[string]struct {
		tamper func(*batch)
		fault  string
	}{
		"no rules": {func(b *batch) { g.deleteRules(b, chainName(dev, 0)) }, `rules []`},
		"accepts first": {func(b *batch) {
			b.add(purpose{what: "insert"}, unix.NFT_MSG_NEWRULE, netlink.Create, func(ae *netlink.AttributeEncoder) {
				ae.String(unix.NFTA_RULE_TABLE, g.Name)
				ae.String(unix.NFTA_RULE_CHAIN, chainName(dev, 0))
				rule{exprs: []expr{accept()}}.encode(ae)
			})
		}, `rules ["accept" "meta rtclassid >= 0 accept"`},
		"dormant": {func(b *batch) {
			b.add(purpose{what: "sleep"}, unix.NFT_MSG_NEWTABLE, 0, func(ae *netlink.AttributeEncoder) {
				ae.String(unix.NFTA_TABLE_NAME, g.Name)
				ae.Uint32(unix.NFTA_TABLE_FLAGS, nftTableDormant)
			})
		}, "dormant"},
		"a chain of someone's": {func(b *batch) {
			b.add(purpose{what: "chain"}, unix.NFT_MSG_NEWCHAIN, netlink.Create, func(ae *netlink.AttributeEncoder) {
				ae.String(unix.NFTA_CHAIN_TABLE, g.Name)
				ae.String(unix.NFTA_CHAIN_NAME, "theirs")
			})
		}, "chain theirs is none of ours"},
	} {
		t.Run(name, func(t *testing.T) {
			install(t, g, dev)
			if s := status(t, g); len(s.Guarded()) != 1 {
				t.Fatalf("installed: %+v", s)
			}
			b := &batch{}
			tt.tamper(b)
			must(t, g.with(func(c conn) error {
				generation, err := c.generation()
				if err != nil {
					return err
				}
				return c.commit(b, generation)
			}))
			faults := ""
			for _, d := range status(t, g).Devices {
				faults += d.Fault
			}
			if !strings.Contains(faults, tt.fault) {
				t.Errorf("status sees %q, want %q", faults, tt.fault)
			}
			install(t, g, dev)
			if s := status(t, g); len(s.Guarded()) != 1 || len(s.Devices) != 1 || s.Devices[0].Fault != "" {
				t.Errorf("installed again: %+v", s)
			}
		})
	}
}

func TestErrorsNameWhatFailed(t *testing.T) {
	p, g := near(t)
	for _, tt := range []struct {
		gate Gate
		cfg  Config
		want string
	}{
		{Gate{Owner: "x"}, Config{}, `"" cannot be the name`},
		{Gate{Name: "sixteen-letters!", Owner: "x"}, Config{}, "cannot be the name"},
		{Gate{Name: "x"}, Config{}, "mark"},
		{g, Config{Devices: []Device{{Name: "a b"}}}, `"a b" is neither`},
		{g, Config{Devices: []Device{{Name: "a*b"}}}, `"a*b" is neither`},
		{g, Config{Devices: []Device{{Name: "a"}, {Name: "a"}}}, "a is named twice"},
		{g, Config{Devices: []Device{{Name: "postern"}}}, "guarded by itself"},
	} {
		tt.gate.NetNS = g.NetNS
		if err := tt.gate.Install(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v, %+v: %v, want %q", tt.gate, tt.cfg, err, tt.want)
		}
	}
	// The kernel's refusal of one message: a second chain of the same name.
	install(t, g, Device{Name: "near"})
	err := g.with(func(c conn) error {
		generation, err := c.generation()
		if err != nil {
			return err
		}
		b := &batch{}
		g.newTable(b)
		g.newChain(b, Device{Name: "near"}, 0)
		return c.commit(b, generation)
	})
	if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "hook at the egress of near") {
		t.Errorf("%v", err)
	}
	stale := g.with(func(c conn) error {
		generation, err := c.generation()
		if err != nil {
			return err
		}
		b := &batch{}
		g.newTable(b)
		return c.commit(b, generation-1)
	})
	if !errors.Is(stale, errStale) {
		t.Errorf("an old generation: %v", stale)
	}
	// Without rights, on a thread of its own that ends with it.
	must(t, p.Do(0, func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			return errno
		}
		g := Gate{Name: "postern", Owner: "x"}
		_, statusErr := g.Status()
		for call, err := range map[string]error{"Probe": Probe(0), "Install": g.Install(Config{}), "Remove": g.Remove(), "Status": statusErr} {
			if !errors.Is(err, os.ErrPermission) || errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
				t.Errorf("%s without rights: %v", call, err)
			}
		}
		return nil
	}))
}

// Probe leaves nothing behind.
func TestProbeChangesNothing(t *testing.T) {
	p, g := near(t)
	must(t, Probe(g.NetNS))
	must(t, p.Do(0, func() error { return Probe(0) }))
	if s := status(t, Gate{Name: "gate-probe", Owner: "x", NetNS: g.NetNS}); s.Installed || s.Inspection != 0 {
		t.Errorf("%+v", s)
	}
	links, err := handle(t, p, 0).LinkList()
	if err != nil || len(links) != 2 {
		t.Errorf("%d interfaces, %v", len(links), err)
	}
}

// nft reads back what was written.
func TestNftReadsIt(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		cannot(t, "needs the tool nft")
	}
	p, g := near(t)
	must(t, g.Install(Config{Devices: []Device{{Name: "near"}}, Priority: -5}))
	var out []byte
	must(t, p.Do(0, func() (err error) {
		// The child is made by this thread, and so in its network namespace.
		out, err = exec.Command(nft, "-n", "list", "table", "netdev", g.Name).CombinedOutput()
		return err
	}))
	for _, want := range []string{
		"table netdev postern {", `comment "postern, by its test"`, "chain egress-device-near-priority-5 {",
		`type filter hook egress device "near" priority -5; policy accept;`,
		`meta rtclassid >= 0 accept comment "has a route: the IP stack's own"`,
		`fwd to "postern" comment "to be inspected"`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
