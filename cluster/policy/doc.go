// Package policy is a policy for all nodes of a cluster: its versions, how one is rolled out, what
// each node reports, and what a node keeps of it for the time in which it is alone.
//
// # Keys
//
// All are below the prefix of the agents, in JSON:
//
//	cluster/policies/NUMBER     a Version: the text, by whom, when. Never changed; the last Kept are there
//	cluster/outcomes/NUMBER     an Outcome: what came of rolling it out
//	cluster/rollout             the Rollout: which version is wanted, of whom, and the last good one
//	cluster/rollout/driver      the node that moves the roll-out on, under its lease
//	cluster/reports/NODE        a Report: what the node has in force. Under no lease
//	cluster/sets/SET/ELEMENT    an Element, each part escaped as in a URL; with a time to live under a lease of its own
//	nodes/NODE                  the node is there (package cluster), under its lease
//
// Everything that decides is in one key, cluster/rollout, and each change of it is a transaction on the
// revision that was seen: of two at one time one succeeds, and the other is told. A new version and the roll-out of it
// are written by one transaction.
//
// A report stays when its node is gone, since what a node said last is what is asked for then. Whether
// it is there is told by nodes/NODE: a node takes part in a roll-out if its report names the lease of that
// key. So a report of a node's life before counts for nothing, and so does that of a second agent of its name, which
// has no lease and may not write one.
//
// # A roll-out
//
// Nobody drives it but the agents: one of them, the driver, whose key is under its lease; when it dies,
// another one goes on. What it does is Next, a function of what stands in etcd and how long it has stood there. The
// first node tries the version, then the others do, all at once. Whatever fails stops it: then the
// wanted version is the last good one again, for all.
//
// A node is waited for if it was there when its turn came, however it is now: one that is gone in the middle
// of its trial may have been cut off by it. One that was not there is not waited for; it takes the last good version
// when it comes, the new one when that is the last good one.
//
// A trial is a policy in force with a deadline in the kernel, which goes back by itself. It is kept if, a quarter
// of the time later, the node writes to etcd over a new connection. What hides a cut for longer than
// that (an entry of the neighbour cache) is not seen.
//
// # Alone
//
// The last good version is kept on disk. A node that does not reach etcd goes on with it, also after it is
// started anew. That nothing stands in etcd, or nothing that can be read, changes nothing.
//
// # Sets
//
// The elements under cluster/sets/ are added to the set of that name of the policy in force, the deadline of
// one with a time to live is counted from before etcd was asked for it: then it ends on a node that is
// cut off as well, no later than elsewhere. One without stays there, as the policy does. What others
// add to these sets on a node is left alone.
//
// The package refuses to know etcd, and how a policy is enforced: it knows a Store and an Enforcer.
package policy
