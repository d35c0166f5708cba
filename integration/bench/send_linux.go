package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	tpacket "github.com/gopacket/gopacket/afpacket"
	"github.com/mdlayher/packet"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/firewall"
)

// sending compares guarded sends in process with those of others, which check nothing.
func sending(b *bench) error {
	s := b.stage()
	defer s.close()
	w, err := s.world(unguarded)
	if err != nil {
		return err
	}
	const rules = ruleset(10)
	g := &goSenders{world: w, frame: rules.accepted()}
	if err := g.open(rules); err != nil {
		return err
	}
	one := &side{name: "mdlayher/packet, WriteTo, unguarded", run: timed(g.mdlayher)}
	s.versus(one, &side{name: "postern, WriteTo, unguarded", run: timed(g.writeTo(g.plain))}, 0)
	s.versus(one, &side{name: "postern, WriteTo, guarded by 10 rules", run: timed(g.writeTo(g.guarded))}, 0)
	s.versus(one, &side{name: "gopacket/afpacket, WritePacketData, unguarded", run: timed(g.gopacket)}, 0)
	batch := &side{name: "postern, WriteBatch of 64, guarded by 10 rules", run: timed(g.writeBatch)}
	ring := &side{name: "postern, Ring of 256, guarded by 10 rules", run: timed(g.writeRing)}
	s.versus(one, batch, 0)
	s.versus(one, ring, 0)

	c, err := newCSenders()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: no comparison with C:", err)
		return s.measure(oneByOne, b.course())
	}
	defer c.close()
	plain, err := c.side(w, b.cpu, "C, send, unguarded", "sendto", g.frame)
	if err != nil {
		return err
	}
	s.versus(one, plain, 0)
	if err := s.measure(oneByOne, b.course()); err != nil {
		return err
	}
	for mode, ours := range map[string]*side{"sendmmsg": batch, "ring": ring} {
		theirs, err := c.side(w, b.cpu, map[string]string{"sendmmsg": "C, sendmmsg of 64, unguarded", "ring": "C, PACKET_TX_RING of 256, unguarded"}[mode], mode, g.frame)
		if err != nil {
			return err
		}
		s.versus(theirs, ours, 0)
	}
	return s.measure(section{ID: "send-batch", Title: "Sending many at once, in process", Text: "The same frame."}, b.course())
}

var oneByOne = section{ID: "send", Title: "Sending, in process", Text: "An ARP frame of 60 bytes into a device that swallows it."}

// goSenders are sockets of Go libraries on one device.
type goSenders struct {
	*world
	frame          []byte
	theirs         *packet.Conn
	raw            *tpacket.TPacket
	plain, guarded *afpacket.Conn
	ring           *afpacket.Ring
	batch          []afpacket.Message
}

var everyone = &packet.Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}

func (g *goSenders) open(rules ruleset) error {
	policy, _, err := firewall.Parse("bench.yaml", []byte(rules.postern("auto", g.dev.Name)))
	if err != nil {
		return err
	}
	fw, err := firewall.New(policy)
	if err != nil {
		return err
	}
	for range 64 {
		g.batch = append(g.batch, afpacket.Message{Bytes: g.frame, Addr: everyone})
	}
	cfg := &afpacket.Config{Firewall: fw}
	const arp = 0x0806
	return g.Do(0, func() (err error) {
		var errs [5]error
		g.theirs, errs[0] = packet.Listen(g.dev, packet.Raw, arp, nil)
		g.plain, errs[1] = afpacket.Listen(g.dev, packet.Raw, arp, nil)
		g.guarded, errs[2] = afpacket.Listen(g.dev, packet.Raw, arp, cfg)
		g.ring, errs[3] = afpacket.OpenRing(g.dev, 256, cfg)
		g.raw, errs[4] = tpacket.NewTPacket(tpacket.OptInterface(g.dev.Name))
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		g.onClose(func() error {
			g.raw.Close()
			return errors.Join(g.theirs.Close(), g.plain.Close(), g.guarded.Close(), g.ring.Close())
		})
		return nil
	})
}

func (g *goSenders) mdlayher(n int) error {
	for range n {
		if _, err := g.theirs.WriteTo(g.frame, everyone); err != nil {
			return err
		}
	}
	return nil
}

func (g *goSenders) writeTo(c *afpacket.Conn) func(n int) error {
	return func(n int) error {
		for range n {
			if _, err := c.WriteTo(g.frame, everyone); err != nil {
				return err
			}
		}
		return nil
	}
}

func (g *goSenders) writeBatch(n int) error {
	for ; n > 0; n -= len(g.batch) {
		if _, err := g.guarded.WriteBatch(g.batch[:min(n, len(g.batch))]); err != nil {
			return err
		}
	}
	return nil
}

func (g *goSenders) writeRing(n int) error {
	for range n {
		if _, err := g.ring.Write(g.frame); err != nil {
			return err
		}
	}
	return g.ring.Flush()
}

func (g *goSenders) gopacket(n int) error {
	for range n {
		if err := g.raw.WritePacketData(g.frame); err != nil {
			return err
		}
	}
	return nil
}
