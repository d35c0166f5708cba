package cluster

// learn takes in what became known of the cluster.
func (a *Agent) learn(list []Change) {
	var ended []*address
	before := map[*address]*Holder{}
	for _, c := range list {
		if !c.Reset {
			a.revision = max(a.revision, c.Revision)
		}
		switch {
		case c.Reset:
			a.followed = true
			if c.Revision < a.revision {
				// It was restored from an older state, or is another: nothing that was held is known to it.
				a.Log.Warn("etcd has forgotten what it knew: addresses are left alone for a lease time")
				for _, x := range a.addresses {
					x.wait = a.Now() + int64(a.Config.Lease)
				}
				a.revision = 0
			}
			a.revision = max(a.revision, c.Revision)
			a.nodes = map[string]*Node{}
			for _, x := range a.addresses {
				// What was deleted meanwhile is no longer known to be the cluster's.
				before[x], x.holder, x.known = x.holder, nil, x.known && a.mine(x)
			}
		case c.Node != "" && c.Record == nil:
			delete(a.nodes, c.Node)
		case c.Node != "":
			a.nodes[c.Node] = c.Record
		case a.byAddr[c.Address] != nil:
			x := a.byAddr[c.Address]
			if c.Holder == nil && x.holder != nil {
				before[x] = x.holder
				ended = append(ended, x)
			}
			if c.Holder != nil && c.Holder.Malformed != "" {
				a.Log.Error("an address is not held and not claimed, since its key is malformed: "+c.Holder.Malformed, "address", c.Address)
			}
			// One that this node claimed is known when nobody answered its probes.
			claimed := x.claiming != 0 && c.Holder != nil && c.Holder.Lease == a.lease.ID
			x.known = x.known || c.Holder != nil && !c.Holder.Released && !claimed
			x.holder, x.claiming = c.Holder, 0
			if c.Holder == nil || c.Holder.Revision != x.gives {
				x.giving = 0 // it was carried out, or something else was
			}
		}
	}
	for _, x := range ended {
		h := before[x]
		n := a.nodes[h.Node]
		if x.holder == nil && !h.Released && (n != nil && n.Lease == h.Lease || h.Malformed != "") {
			// Somebody removed the key: its holder's door may be open until its lease would be over.
			x.wait = a.Now() + int64(a.Config.Lease)
			a.Log.Warn("the key of an address was removed while its holder lives; it is left alone for a lease time", "address", x.Addr, "holder", h.Node)
		}
	}
	if own := a.nodes[a.Config.Node]; own == nil || own.Lease != a.lease.ID {
		a.published = nil
	}
}
