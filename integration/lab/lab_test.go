//go:build linux

package lab

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"

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
