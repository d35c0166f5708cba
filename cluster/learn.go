package cluster

// end is that of a lease, with all that was held under it, at a revision.
type end struct{ lease, revision int64 }

// learn takes in what became known of the cluster.
func (a *Agent) learn(list []Change) {
	ends := a.ends(list)
	forgotten := map[*address]*Holder{} // at a reset
	for _, c := range list {
		if !c.Reset {
			a.revision = max(a.revision, c.Revision)
		}
		switch {
		case c.Reset:
			a.reset(c.Revision, forgotten)
		case c.Node != "" && c.Record == nil:
			delete(a.nodes, c.Node)
		case c.Node != "":
			a.nodes[c.Node] = c.Record
		case a.byAddr[c.Address] != nil:
			x := a.byAddr[c.Address]
			if h := x.holder; h.holds() && !h.same(c.Holder) && (c.Holder != nil || !ends[end{h.Lease, c.Revision}]) {
				a.leaveAlone(x, h)
			}
			a.learnHolder(x, c.Holder)
		}
	}
	for x, h := range forgotten {
		// What happened in between is not known, but whether its holder lives.
		if n := a.nodes[h.Node]; !h.same(x.holder) && (h.Malformed != "" || n != nil && n.Lease == h.Lease) {
			a.leaveAlone(x, h)
		}
	}
	if own := a.nodes[a.Config.Node]; own == nil || own.Lease != a.lease.ID {
		a.published = nil
	}
}

// ends are those of nodes' leases: etcd removes all that is under a lease at one revision. A key that is
// removed at another was so by somebody.
func (a *Agent) ends(list []Change) map[end]bool {
	out, leases := map[end]bool{}, map[string]int64{}
	for name, n := range a.nodes {
		leases[name] = n.Lease
	}
	for _, c := range list {
		switch {
		case c.Node != "" && c.Record == nil:
			out[end{leases[c.Node], c.Revision}] = true
		case c.Node != "":
			leases[c.Node] = c.Record.Lease
		}
	}
	return out
}

// holds says whether somebody may be speaking.
func (h *Holder) holds() bool { return h != nil && (!h.Released || h.Malformed != "") }

// same says whether what follows was written by the holder itself: nobody else has its lease.
func (h *Holder) same(next *Holder) bool {
	return next != nil && h.Malformed == "" && next.Malformed == "" && next.Node == h.Node && next.Lease == h.Lease
}

func (a *Agent) reset(revision int64, forgotten map[*address]*Holder) {
	a.followed = true
	if revision < a.revision {
		// It was restored from an older state, or is another: nothing that was held is known to it.
		a.Log.Warn("etcd has forgotten what it knew: addresses are left alone for a lease time")
		for _, x := range a.addresses {
			x.wait = a.Now() + int64(a.Config.Lease)
		}
		a.revision = 0
	}
	a.revision = max(a.revision, revision)
	a.nodes = map[string]*Node{}
	for _, x := range a.addresses {
		if x.holder.holds() {
			forgotten[x] = x.holder
		}
		// What was deleted meanwhile is no longer known to be the cluster's.
		x.holder, x.known = nil, x.known && a.mine(x)
	}
}

func (a *Agent) learnHolder(x *address, h *Holder) {
	if h != nil && h.Malformed != "" {
		a.Log.Error("an address is not held and not claimed, since its key is malformed: "+h.Malformed, "address", x.Addr)
	}
	// One that this node claimed is known when nobody answered its probes.
	claimed := x.claiming != 0 && h != nil && h.Lease == a.lease.ID
	x.known = x.known || h != nil && !h.Released && !claimed
	x.holder, x.claiming = h, 0
	if h == nil || h.Revision != x.gives {
		x.giving = 0 // it was carried out, or something else was
	}
}

// leaveAlone is for an address whose key somebody removed or overwrote: its holder's door may be open until its lease
// would be over. Nobody takes it until then, not even whom the key names.
func (a *Agent) leaveAlone(x *address, h *Holder) {
	x.wait = a.Now() + int64(a.Config.Lease)
	a.Log.Warn("the key of an address was changed while its holder lives; it is left alone for a lease time", "address", x.Addr, "holder", h.Node)
}
