package matrix

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/postern-fw/postern/integration/lab"
)

// receiver sees all frames that arrive at the far device.
type receiver struct {
	*lab.Receiver
	p *lab.Pair
	// end sends the frame that ends a batch, by an AF_XDP socket at the near device: no
	// egress hook sees it, and veth's queue keeps the order.
	end func(frame []byte) error
	own *xsk
	n   uint64
	// inner is what of an arriving frame counts; nil for all of it.
	inner func([]byte) []byte
}

func receive(t testing.TB, p *lab.Pair) *receiver {
	t.Helper()
	r := &receiver{p: p}
	var err error
	r.Receiver, err = p.Receive(1)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	must(t, r.listen())
	t.Cleanup(r.pause)
	return r
}

// listen opens the socket that ends batches; pause closes it, for a device's queue
// takes one AF_XDP socket.
func (r *receiver) listen() error {
	return r.p.Do(0, func() (err error) {
		if r.own, err = newXSK(r.p.Ifi[0].Index); err == nil {
			r.end = r.own.send
		}
		return err
	})
}

func (r *receiver) pause() {
	if r.own != nil {
		r.own.close()
		r.own = nil
	}
}

// settle gives fn each frame that arrived of those that were sent before.
func (r *receiver) settle(fn func(frame []byte)) error {
	r.n++
	end := make([]byte, 64)
	copy(end, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5 end of a batch")
	binary.BigEndian.PutUint64(end[56:], r.n)
	if err := r.end(end); err != nil {
		return fmt.Errorf("the end of a batch: %w", err)
	}
	for {
		frame, err := r.Next(10 * time.Second)
		if err != nil {
			return fmt.Errorf("waiting for the end of a batch: %w", err)
		}
		if string(frame) == string(end) {
			break
		}
		if r.inner != nil {
			frame = r.inner(frame)
		}
		fn(frame)
	}
	if n, err := r.Lost(); err != nil || n > 0 {
		return fmt.Errorf("%d frames arrived that the receiver did not take, %v", n, err)
	}
	return nil
}
