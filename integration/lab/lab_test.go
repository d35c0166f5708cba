//go:build linux

package lab

import (
	"os"
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
	p.Close()
	p.Close() // closing twice is harmless
}
