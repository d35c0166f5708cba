package matrix

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/evasions"
)

// superTypes are what the kernel, or the device, is told to make of a super-frame: datagrams,
// each with the one UDP header, or fragments of one datagram.
var superTypes = map[string]uint8{"datagrams": vnetGSOUDPL4, "fragments": vnetGSOUDP}

// vnetPaths are those with PACKET_VNET_HDR.
func vnetPaths() []path {
	return slices.DeleteFunc(paths(), func(p path) bool { return !p.vnet })
}

// withHeader are the paths with a header before each frame that makes it a super-frame of
// IPv4 without options and UDP.
func withHeader(list []path, typ uint8, size int) []path {
	list = slices.Clone(list)
	for i := range list {
		list[i].header = vnetHeader{vnetNeedsChecksum, typ, 14 + 20 + 8, uint16(size), 14 + 20, 6}
	}
	return list
}

// superFramesOut sends super-frames at a device by some paths, guarded or not, and counts what
// arrives of them that the policy refuses.
func (w *world) superFramesOut(t *testing.T, r *receiver, ns int, d device, list []path, typ uint8, h *how) (out, sent int) {
	t.Helper()
	if len(w.superFrames) == 0 {
		t.Fatal("no super-frames to send")
	}
	w.unguard(t)
	var accepts func([]byte) bool
	var inForce *evasions.Policy
	for _, c := range w.superFrames {
		if inForce != c.Policy {
			inForce, accepts = c.Policy, classifier(t, c.Policy)
			if h != nil {
				w.guard(t, c.Policy, *h)
			}
		}
		for _, s := range w.openAt(t, ns, d, withHeader(list, typ, c.Forged.GSOSize)) {
			_, err := s.send([][]byte{c.Forged.Bytes})
			must(t, err)
			sent++
			must(t, r.settle(func(b []byte) {
				if len(b) > 23 && string(b[12:14]) == "\x08\x00" && b[23] == unix.IPPROTO_UDP && !accepts(b) {
					out++
				}
			}))
		}
	}
	return out, sent
}

// TestSuperFrames: one UDP header, and behind it what becomes many frames once it is judged.
// The kernel cuts for those who do not bypass, by the protocol that they claim; the others'
// are for a device that can (validate_xmit_skb, __dev_direct_xmit).
func TestSuperFrames(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	for name, typ := range superTypes {
		open, sent := w.superFramesOut(t, r, 0, w.near, vnetPaths(), typ, nil)
		guarded, _ := w.superFramesOut(t, r, 0, w.near, vnetPaths(), typ, &how{})
		t.Logf("%d super-frames, to be %s: %d forged frames get out without a guard, %d with it", sent, name, open, guarded)
		if open < sent/4 || guarded != 0 {
			t.Errorf("%s: %d of %d super-frames get out without a guard, %d with it", name, open, sent, guarded)
		}
	}
}

// TestSuperFramesAbove: a device above the guarded one cuts them first. Of fragments, all but the
// last have no socket then (skb_segment), as what is bridged has none; but they are
// a packet socket's.
func TestSuperFramesAbove(t *testing.T) {
	for _, s := range scenes {
		if !slices.Contains([]string{"macvlan", "macvlan in another namespace", "bridge with one port"}, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t)
			d := s.build(t, w)
			w.sendAs(d.mac)
			r := receive(t, w.Pair)
			for name, typ := range superTypes {
				open, sent := w.superFramesOut(t, r, s.ns, d, vnetPaths()[:1], typ, nil)
				if open == 0 {
					t.Errorf("%s: of %d super-frames none gets out without a guard", name, sent)
				}
				for _, h := range []how{{}, {all: true}} {
					if guarded, _ := w.superFramesOut(t, r, s.ns, d, vnetPaths()[:1], typ, &h); guarded != 0 {
						t.Errorf("%s: near guarded, senders: all %t: of %d forged frames %d get out", name, h.all, open, guarded)
					}
				}
			}
		})
	}
}
