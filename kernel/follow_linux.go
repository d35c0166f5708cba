package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// sweepEvery is how often Follow takes dead elements out of the sets, lookEvery how often it looks for
// the cgroups that a policy names, beyond what it is told of: another process may have put a policy in force
// that names others.
const sweepEvery, lookEvery = time.Minute, 10 * time.Second

// Follow keeps the hooks in step with the interfaces that come, go, are renamed or get another
// address, tells the programs of cgroups that come, and takes elements out of sets whose time is over, until the context ends. It
// does not go by itself: an interface of a name that the policy knows is guarded by the
// gate before its first frame where the kernel follows names (Linux 6.16; 6.17 for
// prefixes), and otherwise as soon as this process is told of it.
func (h Host) Follow(ctx context.Context, log *slog.Logger) error {
	updates, failed := make(chan netlink.LinkUpdate, 1024), make(chan error, 1)
	options := netlink.LinkSubscribeOptions{ListExisting: true, ReceiveBufferSize: 4 << 20, ErrorCallback: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}}
	if h.NetNS != 0 {
		ns := netns.NsHandle(h.NetNS)
		options.Namespace = &ns
	}
	if err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), options); err != nil {
		return fmt.Errorf("subscribe to changes of interfaces: %w", err)
	}
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	watch, err := watchCgroups()
	if err != nil {
		log.Warn("new cgroups are found late", "error", err, "after", lookEvery)
		watch = &cgroupWatch{}
	}
	defer watch.Close()
	h.lookForCgroups(watch, log)
	known := map[int]netlink.LinkAttrs{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			// Messages were lost (ENOBUFS), interfaces changed while they were listed, or the
			// socket is lost: look at all that there is.
			log.Warn("changes of interfaces were lost", "error", err)
			h.followed(log)
			if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return fmt.Errorf("listening for changes of interfaces: %w", err)
			}
		case u, ok := <-updates:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the subscription to changes of interfaces ended")
			}
			changed := note(known, u)
			for len(updates) > 0 { // those that came together
				if u, ok := <-updates; ok {
					changed = note(known, u) || changed
				}
			}
			if changed {
				h.followed(log)
			}
		case <-look.C:
			h.lookForCgroups(watch, log)
		case <-watch.changed:
			h.lookForCgroups(watch, log)
		case <-sweep.C:
			if err := h.Sweep(); err != nil {
				log.Warn("taking dead elements out of sets", "error", err)
			}
		}
	}
}

func (h Host) lookForCgroups(w *cgroupWatch, log *slog.Logger) {
	if err := h.followCgroups(w); err != nil && !errors.Is(err, ErrNothing) {
		log.Warn("looking for the cgroups that the policy names", "error", err)
	}
}

// note says whether an update changes what matters here.
func note(known map[int]netlink.LinkAttrs, u netlink.LinkUpdate) bool {
	now := *u.Attrs()
	if u.Header.Type == unix.RTM_DELLINK {
		delete(known, now.Index)
		return true
	}
	was, there := known[now.Index]
	known[now.Index] = netlink.LinkAttrs{Name: now.Name, HardwareAddr: now.HardwareAddr}
	return !there || was.Name != now.Name || was.HardwareAddr.String() != now.HardwareAddr.String()
}

// followed makes the hooks what they should be now.
func (h Host) followed(log *slog.Logger) {
	err := h.use(func(s *session, st state) error { return s.converge(st) })
	if err != nil && !errors.Is(err, ErrNothing) {
		log.Error("an interface changed, and the guard does not follow", "error", err)
	}
}

// Sweep takes the elements out of all sets whose time is over. They had no effect any more, but took
// room.
func (h Host) Sweep() error {
	return h.use(func(_ *session, st state) (err error) {
		for _, slot := range st.current.Layout.Sets {
			err = errors.Join(err, st.current.engine.SweepSet(slot.Name, bootTime()))
		}
		return err
	})
}
