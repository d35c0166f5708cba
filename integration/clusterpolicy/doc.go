// Package clusterpolicy holds that a policy for all nodes of a cluster is on all of them, or on none: three nodes and
// their etcd in throw-away network namespaces, real agents, and frames that show what is in force.
package clusterpolicy
