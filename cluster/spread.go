package cluster

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
)

// spread says which node should hold each address. All nodes that know the same come to
// the same result. An address with preferences goes to the first of them that is able.
// The others are spread evenly; as few as possible move, and which of the able nodes takes
// one is decided by rendezvous hashing. Addresses that are to be apart are, where enough
// nodes are able.
func spread(addresses []Address, nodes map[string]*Node, holders map[netip.Addr]*Holder) map[netip.Addr]string {
	s := spreading{able: map[netip.Addr]map[string]bool{}, load: map[string]int{}, apart: map[[2]string]int{}, at: map[netip.Addr]string{}}
	for name, n := range nodes {
		s.add(name, n)
	}
	slices.Sort(s.names)
	var rest []Address
	for _, a := range addresses {
		if i := slices.IndexFunc(a.Prefer, func(n string) bool { return s.able[a.Addr][n] }); i >= 0 {
			s.give(a, a.Prefer[i])
		} else {
			rest = append(rest, a)
		}
	}
	quota := s.quota(rest, holders)
	var open []Address
	for _, a := range rest {
		h := holders[a.Addr]
		if h != nil && !h.Released && s.able[a.Addr][h.Node] && s.load[h.Node] < quota[h.Node] && s.apart[[2]string{a.Apart, h.Node}] == 0 {
			s.give(a, h.Node)
		} else {
			open = append(open, a)
		}
	}
	for _, a := range open {
		if n := s.best(a, quota); n != "" {
			s.give(a, n)
		}
	}
	return s.at
}

type spreading struct {
	names []string // of the nodes that are not drained
	able  map[netip.Addr]map[string]bool
	load  map[string]int
	apart map[[2]string]int // by group and node
	at    map[netip.Addr]string
}

func (s *spreading) add(name string, n *Node) {
	if n.Drained {
		return
	}
	s.names = append(s.names, name)
	for _, a := range n.Addresses {
		if s.able[a] == nil {
			s.able[a] = map[string]bool{}
		}
		s.able[a][name] = true
	}
	for _, a := range n.Unable {
		delete(s.able[a], name)
	}
}

func (s *spreading) give(a Address, node string) {
	s.at[a.Addr] = node
	s.load[node]++
	if a.Apart != "" {
		s.apart[[2]string{a.Apart, node}]++
	}
}

// quota is how many addresses a node holds if all hold as many; those that hold the most
// already get what cannot be divided.
func (s *spreading) quota(rest []Address, holders map[netip.Addr]*Holder) map[string]int {
	quota := map[string]int{}
	if len(s.names) == 0 {
		return quota
	}
	total, has := 0, map[string]int{}
	for n, load := range s.load {
		total, has[n] = total+load, load
	}
	for _, a := range rest {
		if len(s.able[a.Addr]) > 0 {
			total++
		}
		if h := holders[a.Addr]; h != nil && !h.Released {
			has[h.Node]++
		}
	}
	order := slices.Clone(s.names)
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(has[b], has[a]) })
	for i, n := range order {
		quota[n] = total / len(order)
		if i < total%len(order) {
			quota[n]++
		}
	}
	return quota
}

// best is the able node that an address goes to; "" if there is none.
func (s *spreading) best(a Address, quota map[string]int) (best string) {
	type rank struct{ together, over, load int }
	var lowest rank
	var highest uint64
	for _, n := range s.names {
		if !s.able[a.Addr][n] {
			continue
		}
		r := rank{together: s.apart[[2]string{a.Apart, n}]}
		if s.load[n] >= quota[n] {
			r.over, r.load = 1, s.load[n]
		}
		score := weight(a.Addr, n)
		order := cmp.Or(cmp.Compare(r.together, lowest.together), cmp.Compare(r.over, lowest.over), cmp.Compare(r.load, lowest.load), -cmp.Compare(score, highest))
		if best == "" || order < 0 {
			best, lowest, highest = n, r, score
		}
	}
	return best
}

// weight is rendezvous hashing's.
func weight(a netip.Addr, node string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(a.AsSlice())
	_, _ = h.Write([]byte(node))
	// FNV mixes the last bytes badly (murmur3's finalizer).
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
