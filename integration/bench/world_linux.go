package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel"
)

// world is a network namespace with a device that swallows what is sent on it, and with what
// guards that device. Each contender has one of its own, so that all can be there
// at the same time and take turns.
type world struct {
	*lab.Pair
	kernel.Host
	dev     *net.Interface
	closers []func() error
}

// newWorld makes one without a guard. The device is an ifb whose root queueing discipline is blackhole:
// what has passed all hooks ends there. (The ifb itself would throw away what a
// socket sent, and send what a gate let go through its hooks once more: ifb_xmit.)
func newWorld() (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.Pair, err = lab.New(); err != nil {
		return w, err
	}
	w.onClose(func() error { w.Pair.Close(); return nil })
	root, unmount, err := lab.BPFFS()
	if err != nil {
		return w, err
	}
	w.onClose(func() error { unmount(); return nil })
	w.Host = kernel.Host{Root: root, NetNS: int(w.NS[0])}
	w.onClose(w.Flush)
	if w.dev, err = w.Sink(0, "sink"); err != nil {
		return w, err
	}
	return w, w.Do(0, func() error {
		return netlink.QdiscReplace(&netlink.GenericQdisc{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: w.dev.Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			QdiscType:  "blackhole",
		})
	})
}

func (w *world) onClose(fn func() error) { w.closers = append(w.closers, fn) }

func (w *world) Close() error {
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	w.closers = nil
	return errors.Join(errs...)
}

// open opens a sender of a frame on the device.
func (w *world) open(frame []byte, how way) (s sender, err error) {
	err = w.Do(0, func() error {
		socket, err := openSocket(w.dev.Index, frame)
		if err != nil {
			return err
		}
		switch s = (plain{socket}); how {
		case byRing:
			s, err = newRing(socket)
		case byBypass:
			err = unix.SetsockoptInt(socket.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
		}
		if err != nil {
			return errors.Join(err, socket.Close())
		}
		w.onClose(s.Close)
		return nil
	})
	return s, err
}

// guard puts a policy in force on the device.
func (w *world) guard(policy string) error {
	status, err := w.Apply(kernel.Source{Name: "bench.yaml", Text: []byte(policy)}, kernel.ApplyOptions{})
	if err != nil {
		return err
	}
	for _, i := range status.Interfaces {
		if !i.Guarded {
			return fmt.Errorf("%s is not guarded: %s", i.Name, i.Fault)
		}
	}
	return nil
}
