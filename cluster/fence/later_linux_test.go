package fence

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/gate"
)

// TestLater: an interface that comes while no process of ours lives, as at boot, has its fence, whatever pattern guards it.
func TestLater(t *testing.T) {
	if err := gate.Probe(0); os.Geteuid() != 0 || err != nil {
		labtest.Cannot(t, fmt.Sprintf("needs root, and netfilter's egress hook: %v", err))
	}
	pair, err := lab.New()
	must(t, err)
	t.Cleanup(pair.Close)
	root, unmount, err := lab.BPFFS()
	must(t, err)
	t.Cleanup(unmount)
	host := kernel.Host{Root: root, NetNS: int(pair.NS[0])}
	cfg := config(t, "")
	for i := range cfg.Addresses {
		cfg.Addresses[i].Interface = "near"
	}
	rename := func(from, to string) {
		t.Helper()
		must(t, pair.Do(0, func() error {
			l, err := netlink.LinkByName(from)
			if err == nil {
				err = netlink.LinkSetName(l, to)
			}
			return err
		}))
	}
	rename("near", "elsewhere")
	text, err := Compose(cfg, "p", []byte("policy: p\nguard: [{interfaces: [\"nea?\"], senders: all}]\ndefault: accept\n"))
	must(t, err)
	_, err = host.Apply(kernel.Source{Name: "p", Text: text}, kernel.ApplyOptions{})
	must(t, err)
	if got := arp(t, pair, 10); got != 1 {
		t.Fatalf("%d frames arrive where nothing is guarded", got)
	}
	rename("elsewhere", "near")
	if got := arp(t, pair, 10); got != 0 {
		t.Error("an address that is not held is announced by an interface that has come later")
	}
	if got := arp(t, pair, 99); got != 1 {
		t.Errorf("%d announcements of another address arrive", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// arp says how many announcements of 192.0.2.x get to the other side, of one.
func arp(t *testing.T, pair *lab.Pair, x byte) (n int) {
	t.Helper()
	var far *packet.Conn
	must(t, pair.Do(1, func() (err error) {
		far, err = packet.Listen(pair.Ifi[1], packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}))
	defer far.Close()
	must(t, pair.Do(0, func() error {
		c, err := packet.Listen(pair.Ifi[0], packet.Raw, unix.ETH_P_ARP, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		b := []byte("\xff\xff\xff\xff\xff\xff......\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01......\xc0\x00\x02.\x00\x00\x00\x00\x00\x00\xc0\x00\x02.")
		copy(b[6:], pair.Ifi[0].HardwareAddr)
		copy(b[22:], pair.Ifi[0].HardwareAddr)
		b[31], b[41] = x, x
		// A refusal is an error to the sender; what arrives is what counts.
		_, _ = c.WriteTo(b, &packet.Addr{HardwareAddr: net.HardwareAddr(b[:6])})
		return nil
	}))
	must(t, far.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	for buf := make([]byte, 2048); ; {
		k, _, err := far.ReadFrom(buf)
		if err != nil {
			return n
		}
		if k >= 42 && strings.HasPrefix(string(buf[12:]), "\x08\x06") && buf[31] == x {
			n++
		}
	}
}
