package main

import (
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// arriving is what a guard costs where frames really leave: over a veth pair to an XDP program that drops
// them.
func arriving(b *bench) error {
	s := b.stage()
	defer s.close()
	var base *side
	for _, x := range []struct {
		hook  string
		rules ruleset
	}{{"", 1}, {"tc", 1}, {"tc", 10_000}, {"gate", 1}, {"gate", 10_000}} {
		w, err := s.world(unguarded)
		if err != nil {
			return err
		}
		w.dev = w.Ifi[0]
		if err := w.dropAtFarEnd(); err != nil {
			return err
		}
		name := "bare"
		if x.hook != "" {
			name = "postern by " + x.hook
			if err := w.guard(x.rules.postern(x.hook, w.dev.Name)); err != nil {
				return err
			}
		}
		side, err := s.sender(w, name, bySendto, x.rules.accepted())
		if err != nil {
			return err
		}
		if base == nil {
			base = side
			continue
		}
		side.note = x.rules.String()
		s.versus(base, side, 0)
	}
	return s.measure(section{
		ID: "veth", Title: "Accepted frames that arrive, by sendto",
		Text: "The same over a veth pair, at whose other end XDP drops what arrives. In the cost is what the sender's CPU does for the other end.",
	}, b.course())
}

func (w *world) dropAtFarEnd() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	if err != nil {
		return err
	}
	defer p.Close()
	return w.Do(1, func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: w.Ifi[1].Index, Flags: link.XDPDriverMode})
		if err == nil {
			w.onClose(l.Close)
		}
		return err
	})
}

// ordinary is what a guard costs the IP stack's own frames, which it does not judge.
func ordinary(b *bench) error {
	s := b.stage()
	defer s.close()
	var base *side
	for _, c := range []contender{
		{name: "bare", put: func(*world, ruleset) error { return nil }},
		contenders[0], contenders[1], contenders[3],
		{name: "postern by tc, senders: all", put: func(w *world, r ruleset) error { return w.guard(allSenders("tc")) }},
		{name: "postern by the gate, senders: all", put: func(w *world, r ruleset) error { return w.guard(allSenders("gate")) }},
		{name: "an nft chain without rules", put: func(w *world, r ruleset) error { return w.nft(emptyChain) }},
	} {
		if c.name == "nft, a set" {
			continue // it accepts ARP alone
		}
		w, err := s.world(func(w *world) error { return c.put(w, 1000) })
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		udp, err := w.udp()
		if err != nil {
			return err
		}
		side := &side{name: c.name, run: timed(udp.send)}
		if base == nil {
			base = side
			continue
		}
		s.versus(base, side, 0)
	}
	return s.measure(section{
		ID: "stack", Title: "The IP stack's own frames, by an ordinary UDP socket",
		Text: "Datagrams of 18 bytes. With `senders: packet-sockets`, 1,000 rules, the guard has only to see that they are none of its business; with `senders: all` it judges them by one rule.",
	}, b.course())
}

func allSenders(hook string) string {
	return fmt.Sprintf("policy: all\nhook: %s\nguard: [{interfaces: [sink], senders: all}]\nrules: [{name: udp, match: udp.dstport == 9, verdict: accept}]\n", hook)
}

// udp opens a UDP socket that sends by the device.
func (w *world) udp() (s plain, err error) {
	err = w.Do(0, func() error {
		dev, err := netlink.LinkByIndex(w.dev.Index)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1).To4(), Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s = plain{socket{fd, make([]byte, 18)}}
		w.onClose(s.Close)
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 2}, Port: 9})
	})
	return s, err
}
