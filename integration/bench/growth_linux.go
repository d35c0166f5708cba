package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/kernel"
)

// shapes is how a guard's cost grows with rules that compare different bits of a field.
func shapes(b *bench) error {
	s := b.stage()
	defer s.close()
	bare, err := s.world(unguarded)
	if err != nil {
		return err
	}
	base, err := s.sender(bare, "bare", bySendto, ruleset(1).accepted())
	if err != nil {
		return err
	}
	for _, shapes := range []int{1, 4, 16} {
		for _, n := range b.counts() {
			if int(n) < shapes {
				continue
			}
			w, err := s.world(func(w *world) error { return w.guard(n.shaped(shapes, "tc", "sink")) })
			if err != nil {
				return err
			}
			side, err := s.sender(w, shapesName(shapes), bySendto, n.acceptedOf(shapes))
			if err != nil {
				return err
			}
			s.versus(base, side, int(n))
		}
	}
	return s.measure(section{
		ID: "shapes", Title: "Rules of several shapes, by tc and sendto", Axis: "rules",
		Text: "A frame that the last rule accepts, which is of the last shape: as many look-ups as there are shapes. Here a shape is a prefix length.",
	}, b.course())
}

// setSizes is how a guard's cost grows with the elements of a set.
func setSizes(b *bench) error {
	s := b.stage()
	defer s.close()
	bare, err := s.world(unguarded)
	if err != nil {
		return err
	}
	base, err := s.sender(bare, "bare", bySendto, ruleset(1).accepted())
	if err != nil {
		return err
	}
	for _, n := range pick(b, []ruleset{1, 10, 100, 1000, 10_000, 100_000, 1_000_000}, []ruleset{1, 100, 10_000}) {
		for name, put := range map[string]func(*world) error{
			"postern by tc": func(w *world) error {
				if err := w.guard(setPolicy("sink")); err != nil {
					return err
				}
				return w.AddToSet("vips", 0, n.elements()...)
			},
			"nft, a set": func(w *world) error { return w.nft(n.nftNamedSet()) },
		} {
			w, err := s.world(put)
			if err != nil {
				return fmt.Errorf("%s, %d elements: %w", name, n, err)
			}
			side, err := s.sender(w, name, bySendto, n.accepted())
			if err != nil {
				return err
			}
			s.versus(base, side, int(n))
		}
	}
	slices.SortStableFunc(s.pairs, func(a, b pair) int { return strings.Compare(b.side.name, a.side.name) })
	return s.measure(section{
		ID: "sets", Title: "Elements of a set, by sendto", Axis: "elements",
		Text: "One rule that accepts the ARP packets of all sender addresses in a set.",
	}, b.course())
}

// setPolicy accepts what is in a set.
func setPolicy(dev string) string {
	return fmt.Sprintf("policy: sets\nhook: tc\nguard: [{interfaces: [%s]}]\nsets: {vips: {type: ipv4, size: 2000000}}\nrules: [{name: vips, match: arp.src.proto_ipv4 in @vips, verdict: accept}]\n", dev)
}

func (r ruleset) elements() [][]string {
	out := make([][]string, r)
	for i := range out {
		out[i] = []string{r.address(i).String()}
	}
	return out
}

// interfaces is how a guard's cost grows with the devices that are guarded.
func interfaces(b *bench) error {
	s := b.stage()
	defer s.close()
	bare, err := s.world(unguarded)
	if err != nil {
		return err
	}
	base, err := s.sender(bare, "bare", bySendto, ruleset(1).accepted())
	if err != nil {
		return err
	}
	for _, hook := range []string{"tc", "gate"} {
		for _, n := range pick(b, []int{1, 10, 100, 1000}, []int{1, 100}) {
			w, err := s.world(func(w *world) error { return w.guardMany(hook, n) })
			if err != nil {
				return fmt.Errorf("%s, %d interfaces: %w", hook, n, err)
			}
			side, err := s.sender(w, "postern by "+map[string]string{"tc": "tc", "gate": "the gate"}[hook], bySendto, ruleset(1).accepted())
			if err != nil {
				return err
			}
			s.versus(base, side, n)
		}
	}
	return s.measure(section{
		ID: "interfaces", Title: "Guarded interfaces, by sendto", Axis: "interfaces",
		Text: "A frame that leaves by one of them, and that a rule accepts which reads the interface's address.",
	}, b.course())
}

// guardMany makes n-1 further devices and guards all, by a policy that reads each one's address.
func (w *world) guardMany(hook string, n int) error {
	err := w.Do(0, func() error {
		for i := 1; i < n; i++ {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("sink%d", i)
			if err := netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.guard(fmt.Sprintf("policy: many\nhook: %s\nguard: [{interfaces: ['sink*']}]\nrules: [{name: own, match: eth.src != iface.mac, verdict: accept}]\n", hook))
}

// optionPlaces is what the walk over DHCP options costs.
func optionPlaces(b *bench) error {
	s := b.stage()
	defer s.close()
	bare, err := s.world(unguarded)
	if err != nil {
		return err
	}
	guarded, err := s.world(func(w *world) error {
		return w.guard("policy: dhcp\nhook: tc\nguard: [{interfaces: [sink]}]\nrules: [{name: discover, match: dhcp.option.dhcp == 1, verdict: accept}]\n")
	})
	if err != nil {
		return err
	}
	frames := placed()
	frames["as dhclient sends it"] = discover().ToBytes()
	for _, name := range slices.Sorted(maps.Keys(frames)) {
		frame := broadcast(frames[name])
		base, err := s.sender(bare, "bare", bySendto, frame)
		if err != nil {
			return err
		}
		side, err := s.sender(guarded, "message type "+name, bySendto, frame)
		if err != nil {
			return err
		}
		if strings.Contains(name, "82") || strings.Contains(name, "dhclient") {
			side.name = name
		}
		s.versus(base, side, 0)
	}
	return s.measure(section{
		ID: "options", Title: "The place of a DHCP option, by tc and sendto",
		Text: "A DISCOVER that a rule accepts by its message type. Every option is looked at wherever the one stands that is asked for: what comes behind it might contradict it.",
	}, b.course())
}

// twoSenders is what a second sender on another CPU does to the first: whether they share anything.
func twoSenders(b *bench) error {
	if runtime.NumCPU() < 2 {
		return nil
	}
	s := b.stage()
	defer s.close()
	const n = ruleset(1000)
	for _, c := range []contender{
		{name: "bare", put: func(*world, ruleset) error { return nil }},
		contenders[0], contenders[1], contenders[3],
	} {
		w, err := s.world(func(w *world) error { return c.put(w, n) })
		if err != nil {
			return err
		}
		alone, err := s.sender(w, c.name+", alone", bySendto, n.accepted())
		if err != nil {
			return err
		}
		other, err := w.open(n.accepted(), bySendto)
		if err != nil {
			return err
		}
		both := beside(other, alone)
		both.name = c.name + ", another sender on another CPU"
		s.versus(alone, both, 0)
	}
	c := b.course()
	c.turn *= 10
	return s.measure(section{
		ID: "senders", Title: "Two senders, by sendto",
		Text: "What a sender's own frame costs while another one sends by the same device from another CPU, compared with when it is alone. The devices are ifbs with one queue.",
	}, c)
}

// beside runs a side while the other sender sends on CPU 0, and notes how much that one sent.
func beside(other sender, s *side) *side {
	ours, theirs := 0, int64(0)
	out := &side{}
	out.run = func(n int) (time.Duration, error) {
		var stop atomic.Bool
		var sent atomic.Int64
		var failed error
		var wg sync.WaitGroup
		wg.Go(func() {
			// The thread ends with the goroutine, which stays locked to it.
			for failed = pin(0); failed == nil && !stop.Load(); sent.Add(10) {
				failed = other.send(10)
			}
		})
		for sent.Load() == 0 { // it has to find its way to the other CPU
			runtime.Gosched()
		}
		before := sent.Load()
		took, err := s.run(n)
		ours, theirs = ours+n, theirs+sent.Load()-before
		stop.Store(true)
		wg.Wait()
		out.note = fmt.Sprintf("the other sent %.2f times as many", float64(theirs)/float64(ours))
		return took, errors.Join(err, failed)
	}
	return out
}

// monitored is what refusals cost while somebody reads of them.
func monitored(b *bench) error {
	s := b.stage()
	defer s.close()
	for _, hook := range []string{"tc", "gate"} {
		var sides [2]*side
		var worlds [2]*world
		for i, name := range []string{"nobody reads", "with a monitor"} {
			w, err := s.world(func(w *world) error { return w.guard(ruleset(10).postern(hook, "sink")) })
			if err != nil {
				return err
			}
			if sides[i], err = s.sender(w, "postern by "+hook+", "+name, bySendto, ruleset(10).refused()); err != nil {
				return err
			}
			worlds[i] = w
		}
		worlds[1].watch(sides[1])
		s.versus(sides[0], sides[1], 0)
	}
	return s.measure(section{
		ID: "monitor", Title: "Refusals, with and without a monitor, by sendto",
		Text: "A frame that is refused. The monitor is a process's reader of events on the other CPU; what finds no room in the ring buffer, because nobody reads or not fast enough, is counted.",
	}, b.course())
}

// watch reads the world's events, and notes how many of the side's refusals were told of.
func (w *world) watch(s *side) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var told atomic.Int64
	go func() { ended <- w.Monitor(ctx, func(*kernel.Event) error { told.Add(1); return nil }) }()
	w.onClose(func() error { cancel(); return <-ended })
	run, refused, took := s.run, 0, time.Duration(0)
	s.run = func(n int) (time.Duration, error) {
		start := time.Now()
		each, err := run(n)
		took += time.Since(start)
		refused += n
		s.note = fmt.Sprintf("%s refusals a second, %.0f %% told of", thousands(int(float64(refused)/took.Seconds())), 100*float64(told.Load())/float64(refused))
		return each, err
	}
}

// nftNamedSet is one rule with a set that has a name, and elements that are put in.
func (r ruleset) nftNamedSet() string {
	var b strings.Builder
	b.WriteString("table netdev bench {\n set vips {\n  type ipv4_addr\n }\n}\n")
	for first := 0; first < int(r); first += 10_000 {
		var list []netip.Addr
		for i := first; i < min(first+10_000, int(r)); i++ {
			list = append(list, r.address(i))
		}
		fmt.Fprintf(&b, "add element netdev bench vips { %s }\n", strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]"))
	}
	return b.String() + chain("arp saddr ip @vips accept")
}
