//go:build linux

package lab

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
)

func TestNew(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI runs as root")
		}
		t.Skip("needs root for network namespaces")
	}
	before, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if p.NS[0].Equal(p.NS[1]) {
		t.Error("both ends are in one namespace")
	}
	if after, err := netlink.LinkList(); err != nil || len(after) != len(before) {
		t.Errorf("the host has %d links, %d before, %v", len(after), len(before), err)
	}
	sink, err := p.Sink(0, "sink")
	if err != nil || sink.Flags&net.FlagUp == 0 || len(sink.HardwareAddr) != 6 {
		t.Errorf("sink %+v, %v", sink, err)
	}
	if err := p.Do(0, func() error { runtime.Goexit(); return nil }); !errors.Is(err, errGoexit) {
		t.Errorf("a function that did not return: %v", err)
	}
	p.Close()
	p.Close() // closing twice is harmless
}

// TestReceiver: each frame arrives once, with its bytes.
func TestReceiver(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI runs as root")
		}
		t.Skip("needs root for network namespaces and eBPF")
	}
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, err := p.Receive(1)
	if err != nil {
		t.Fatal(err)
	}
	short := make([]byte, 14)
	copy(short[12:], "\x88\xb5") // the local experimental EtherType
	long := append(slices.Clone(short), make([]byte, 1500)...)
	err = p.Do(0, func() error {
		c, err := packet.Listen(p.Ifi[0], packet.Raw, 0, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		for _, frame := range [][]byte{short, long} {
			if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: make(net.HardwareAddr, 6)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	if err := r.Drain(counts); err != nil {
		t.Error(err)
	}
	for _, frame := range [][]byte{short, long} {
		if n := counts[string(frame)]; n != 1 {
			t.Errorf("a frame of %d bytes arrived %d times", len(frame), n)
		}
	}
	if _, err := r.Next(0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a frame that nobody sent: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
