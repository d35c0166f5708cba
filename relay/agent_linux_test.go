package relay

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/message"
	"github.com/postern-fw/postern/relay/wire"
)

// newAgent is an agent without sockets: an interface eth1, 10.1.0.1, and a server 192.0.2.53.
func newAgent(t testing.TB, more string) (*Agent, *port) {
	t.Helper()
	c, err := ParseConfig("relay.yaml", []byte("database: "+t.TempDir()+"/db\nservers: [192.0.2.53]\ninterfaces: [{names: [eth1], address: 10.1.0.1}]\n"+more))
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(c, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	p := &port{ifi: &net.Interface{Name: "eth1", Index: 7, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, mac: [6]byte{2, 0, 0, 0, 0, 1}}
	circuits, err := c.circuits(p)
	if err != nil {
		t.Fatal(err)
	}
	a.join(p, circuits)
	return a, p
}

// ask is a client's message, and what the agent makes of it.
func ask(t testing.TB, a *Agent, p *port, frame []byte) (l letter, r Reason) {
	t.Helper()
	if r = a.read(p, frame, &l); r == Relayed {
		// An outbox that is never sent.
		r = a.request(&l, binding.BootTime(), new(wire.Socket).Outbox(), new(arena), func(error) {})
	}
	return l, r
}

// answer is a server's message, and what goes to the client.
func answer(a *Agent, payload []byte) (frames []parcel, r Reason) {
	re := reply{}
	re.Payload, re.Src = payload, 0xc0000235
	var m mail
	if r = a.answer(&re, binding.BootTime()); r == Relayed {
		r = a.deliver(&re, &m)
	}
	for len(a.ledger.waiting) > 0 {
		if e := <-a.ledger.waiting; e.parcel.frame != nil {
			m.list = append(m.list, e.parcel)
		}
	}
	return m.list, r
}

func bytesOf(t testing.TB, head []byte, options string) []byte {
	t.Helper()
	b := make([]byte, 240)
	copy(b, head)
	copy(b[28:], "\x02\x00\x00\x00\x00\x09")
	copy(b[236:], "\x63\x82\x53\x63")
	v, err := hex.DecodeString(options)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, v...)
}

func requestFrame(t testing.TB, options string) []byte {
	d := wire.Datagram{EthDst: [6]byte{255, 255, 255, 255, 255, 255}, EthSrc: [6]byte{2, 0, 0, 0, 0, 9}, Dst: 0xffffffff, SrcPort: 68, DstPort: 67,
		Payload: bytesOf(t, []byte{1, 1, 6, 0, 0, 0, 0, 7}, options)}
	return d.Append(nil, 0, false)
}

// answerHead is one to that request, with an address and a giaddr.
var answerHead = []byte{2, 1, 6, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 10, 1, 0, 7, 0, 0, 0, 0, 10, 1, 0, 1}

// circuitInfo is option 82 with the circuit ID eth1:0.
const circuitInfo = "5208" + "0106" + "657468313a30"

// TestExchange: a DISCOVER, an OFFER, a REQUEST and an ACK.
func TestExchange(t *testing.T) {
	a, p := newAgent(t, "")
	const server = "3604c0000235"
	for _, tt := range []struct {
		request, answer string
		why             Reason
	}{
		{"350101ff", "350102" + server + circuitInfo + "ff", Relayed},
		{"350103" + server + "32040a010007ff", "350105" + server + "330400000258" + circuitInfo + "ff", Relayed},
		{"350103" + server + "32040a010007ff", "350105" + "360409090909" + "330400000258" + circuitInfo + "ff", NotChosen},
		{"350103" + server + "32040a010007ff", "350106" + "360409090909" + circuitInfo + "ff", NotChosen},
		{"350103" + server + "32040a010007ff", "350105" + server + circuitInfo + "ff", NoLeaseTime},
		{"350108ff", "350105" + server + circuitInfo + "ff", Relayed},
		{"350101ff", "350105" + server + "330400000258" + circuitInfo + "ff", NoRequest},
		{"3501015000ff", "350105" + server + "330400000258" + "5000" + circuitInfo + "ff", Relayed},
	} {
		if _, r := ask(t, a, p, requestFrame(t, tt.request)); r != Relayed {
			t.Errorf("%s: %s", tt.request, r)
		}
		list, r := answer(a, bytesOf(t, answerHead, tt.answer))
		if r != tt.why || len(list) != map[bool]int{true: 1, false: 0}[r == Relayed] {
			t.Errorf("%s after %s: %s, %d frames; want %s", tt.answer, tt.request, r, len(list), tt.why)
		}
	}
}

// TestFormerGIAddr: an answer to the agent's former address gets to its client, as long as answers may take, and not longer.
func TestFormerGIAddr(t *testing.T) {
	const server, more = "3604c0000235", "servers: [192.0.2.53]\ninterfaces: [{names: [eth1], address: 10.1.0.2}]\n"
	for name, change := range map[string]func(*Agent, *port, *Config){
		"another configuration": func(a *Agent, p *port, c *Config) {
			circuits, err := c.circuits(p)
			if err != nil {
				t.Fatal(err)
			}
			a.exchange(c, map[*port]map[uint16]*circuit{p: circuits})
		},
		"the interface opened anew": func(a *Agent, p *port, c *Config) {
			again := &port{ifi: p.ifi, mac: p.mac}
			circuits, err := c.circuits(again)
			if err != nil {
				t.Fatal(err)
			}
			a.join(again, circuits)
		},
	} {
		a, p := newAgent(t, "")
		if _, r := ask(t, a, p, requestFrame(t, "350101ff")); r != Relayed {
			t.Fatal(r)
		}
		c, err := ParseConfig("relay.yaml", []byte("database: "+t.TempDir()+"/db\n"+more))
		if err != nil {
			t.Fatal(err)
		}
		change(a, p, c)
		offer := bytesOf(t, answerHead, "350102"+server+circuitInfo+"ff")
		if list, r := answer(a, offer); r != Relayed || len(list) != 1 {
			t.Errorf("%s: an answer that was under way: %s, %d frames", name, r, len(list))
		}
		late := reply{}
		late.Payload, late.Src = offer, 0xc0000235
		if r := a.answer(&late, binding.BootTime()+2*binding.AnswerTime); r != UnknownAgent {
			t.Errorf("%s: an answer that comes much later: %s", name, r)
		}
		const former = 0x0a010001
		until := a.giaddrs[former]
		if change(a, a.ports["eth1"], c); a.giaddrs[former] != until {
			t.Errorf("%s: another change prolongs it by %d", name, a.giaddrs[former]-until)
		}
		head := append([]byte(nil), answerHead...)
		head[27] = 9
		if _, r := answer(a, bytesOf(t, head, "350102"+server+circuitInfo+"ff")); r != UnknownAgent {
			t.Errorf("%s: an address that was never the agent's: %s", name, r)
		}
	}
}

// TestReloadOfEnded: a Reload that comes when nothing is written any more, since Run has failed, fails as well, and waits for nobody.
func TestReloadOfEnded(t *testing.T) {
	a, _ := newAgent(t, "")
	clear(a.ports)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := a.ledger.run(ctx); err != nil {
		t.Fatal(err)
	}
	reloaded := make(chan error, 1)
	go func() { reloaded <- a.Reload(t.Context(), a.config.Load()) }()
	select {
	case err := <-reloaded:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want %v", err, context.Canceled)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits")
	}
}

// FuzzAgent: whatever comes from either side, what goes to a client is an answer, sound, in the
// agent's own name, and without option 82.
func FuzzAgent(f *testing.F) {
	a, p := newAgent(f, "")
	f.Add(requestFrame(f, "350101ff"), true)
	f.Add(requestFrame(f, "350103"+"3604c0000235"+"32040a010007ff"), true)
	f.Add(requestFrame(f, "350107"+"3604c0000235"+"ff"), true)
	f.Add(bytesOf(f, answerHead, "350105"+"3604c0000235"+"330400000258"+circuitInfo+"ff"), false)
	f.Add(bytesOf(f, answerHead, "350106"+"3604c0000235"+circuitInfo+"ff"), false)
	asked := requestFrame(f, "350103"+"3604c0000235"+"32040a010007ff")
	f.Fuzz(func(t *testing.T, b []byte, client bool) {
		if client {
			ask(t, a, p, b)
			for len(a.ledger.waiting) > 0 {
				<-a.ledger.waiting
			}
			return
		}
		ask(t, a, p, asked)
		list, _ := answer(a, b)
		for _, parcel := range list {
			var d wire.Datagram
			var m dhcp.Message
			fault := d.Decode(parcel.frame, true)
			m.Decode(d.Payload)
			if fault != "" || m.Malformed != dhcp.CauseNone || m.Op() != message.BootReply || m.Has(dhcp.OptRelayAgentInfo) || d.EthSrc != p.mac {
				t.Errorf("%x became %x: %s, %s", b, parcel.frame, fault, m.Malformed)
			}
		}
	})
}
