package afpacket

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// A full socket makes the writer wait: not for ever, and not in vain.
func TestFullSocket(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	f := frame(dev.HardwareAddr, "x")
	ms := make([]Message, 10)
	for i := range ms {
		ms[i] = Message{Bytes: f, Addr: broadcast}
	}
	c, batch := connOn(t, p, dev, Raw, 0, &Config{Firewall: judge(accept)}), connOn(t, p, dev, Raw, 0, nil)
	r := ring(t, p, dev, 32, nil)
	for _, w := range []struct {
		name     string
		write    func() error
		deadline func(time.Time) error
	}{
		{"WriteTo", func() error { _, err := c.WriteTo(f, broadcast); return err }, c.SetWriteDeadline},
		{"WriteBatch", func() error { _, err := batch.WriteBatch(ms); return err }, batch.SetWriteDeadline},
		{"Ring", func() error { _, err := r.Write(f); return err }, r.SetWriteDeadline},
	} {
		t.Run(w.name, func(t *testing.T) {
			slow := &netlink.Tbf{
				QdiscAttrs: netlink.QdiscAttrs{LinkIndex: dev.Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
				Rate:       1000, Buffer: 1 << 20, Limit: 1 << 30, // bytes a second
			}
			in(t, p, 0, func() error { return netlink.QdiscReplace(slow) })
			w.deadline(time.Now().Add(300 * time.Millisecond))
			var err error
			n := 0
			for ; err == nil && n < 1e6; n++ {
				err = w.write()
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("after %d writes: %v", n, err)
			}
			w.deadline(time.Time{})
			done := make(chan error)
			go func() {
				var err error
				for i := 0; err == nil && i < 1000; i++ {
					err = w.write()
				}
				done <- err
			}()
			select {
			case err := <-done:
				t.Fatalf("did not wait: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			in(t, p, 0, func() error { return netlink.QdiscDel(slow) })
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("still waits, though there is room")
			}
		})
	}
	if err := r.Flush(); err != nil {
		t.Error(err)
	}
}
