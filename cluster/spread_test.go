package cluster

import (
	"fmt"
	"net/netip"
	"testing"
)

func someAddresses(n int) (list []Address) {
	for i := range n {
		list = append(list, Address{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
	}
	return list
}

func someNodes(list []Address, names ...string) map[string]*Node {
	out := map[string]*Node{}
	for _, name := range names {
		n := &Node{}
		for _, a := range list {
			n.Addresses = append(n.Addresses, a.Addr)
		}
		out[name] = n
	}
	return out
}

func heldBy(at map[netip.Addr]string) (holders map[netip.Addr]*Holder, count map[string]int) {
	holders, count = map[netip.Addr]*Holder{}, map[string]int{}
	for a, n := range at {
		holders[a] = &Holder{Node: n}
		count[n]++
	}
	return holders, count
}

func TestSpreadEvenly(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 100, 1000} {
		list := someAddresses(n)
		at := spread(list, someNodes(list, "a", "b", "c"), nil)
		holders, count := heldBy(at)
		if len(at) != n {
			t.Fatalf("%d of %d addresses have a node", len(at), n)
		}
		even := func(names ...string) {
			t.Helper()
			for _, name := range names {
				if k := count[name]; k < n/len(names) || k > (n+len(names)-1)/len(names) {
					t.Errorf("%d addresses: %s has %d: %v", n, name, k, count)
				}
			}
		}
		even("a", "b", "c")
		// What is even stays.
		for a, name := range spread(list, someNodes(list, "a", "b", "c"), holders) {
			if name != at[a] {
				t.Errorf("%v moves from %s to %s for nothing", a, at[a], name)
			}
		}
		// A node goes: what others have stays.
		left := spread(list, someNodes(list, "a", "b"), holders)
		for a, name := range left {
			if at[a] != "c" && name != at[a] {
				t.Errorf("%v moves from %s to %s though c is gone", a, at[a], name)
			}
		}
		holders, count = heldBy(left)
		even("a", "b")
		// It returns: it gets its share, and nothing moves between others.
		again := spread(list, someNodes(list, "a", "b", "c"), holders)
		for a, name := range again {
			if name != "c" && name != left[a] {
				t.Errorf("%v moves from %s to %s though c is back", a, left[a], name)
			}
		}
		_, count = heldBy(again)
		even("a", "b", "c")
	}
}

func TestSpreadWishes(t *testing.T) {
	list := someAddresses(6)
	a := func(i int) netip.Addr { return list[i].Addr }
	list[0].Prefer = []string{"c", "b"}
	list[1].Prefer = []string{"gone", "c"}
	list[2].Apart, list[3].Apart, list[4].Apart = "dns", "dns", "dns"
	for _, c := range []struct {
		name   string
		change func(nodes map[string]*Node)
		want   map[int]string // by address
		apart  int            // nodes that have one of dns
	}{
		{"all are able", func(map[string]*Node) {}, map[int]string{0: "c", 1: "c"}, 3},
		{"the preferred one is gone", func(n map[string]*Node) { delete(n, "c") }, map[int]string{0: "b"}, 2},
		{"the preferred one is drained", func(n map[string]*Node) { n["c"].Drained = true }, map[int]string{0: "b"}, 2},
		{"the preferred one is unable", func(n map[string]*Node) { n["c"].Unable = []netip.Addr{a(0)} }, map[int]string{0: "b", 1: "c"}, 3},
		{"one is left", func(n map[string]*Node) { delete(n, "c"); delete(n, "b") }, map[int]string{0: "a", 1: "a", 5: "a"}, 1},
		{"one knows nothing of an address", func(n map[string]*Node) { n["a"].Addresses, n["b"].Addresses = nil, nil }, map[int]string{0: "c", 5: "c"}, 1},
		{"nobody is able", func(n map[string]*Node) { clear(n) }, map[int]string{0: "", 5: ""}, 0},
	} {
		nodes := someNodes(list, "a", "b", "c")
		c.change(nodes)
		at := spread(list, nodes, nil)
		for i, want := range c.want {
			if at[a(i)] != want {
				t.Errorf("%s: %v is at %q, want %q", c.name, a(i), at[a(i)], want)
			}
		}
		dns := map[string]bool{}
		for i := 2; i < 5; i++ {
			if n := at[a(i)]; n != "" {
				dns[n] = true
			}
		}
		if len(dns) != c.apart {
			t.Errorf("%s: dns is on %v", c.name, dns)
		}
	}
}

func TestSpreadIsTheSameEverywhere(t *testing.T) {
	list := someAddresses(50)
	want := fmt.Sprint(spread(list, someNodes(list, "a", "b", "c", "d"), nil))
	for range 20 { // maps are read in another order each time
		if got := fmt.Sprint(spread(list, someNodes(list, "d", "c", "b", "a"), nil)); got != want {
			t.Fatal(got)
		}
	}
}
