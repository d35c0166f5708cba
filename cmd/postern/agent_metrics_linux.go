package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/cluster/policy"
)

var (
	vipHeld       = metric("vip_held", "1 if this node lets an address be announced, else 0.", "address", "interface")
	vipOwned      = metric("vip_owned", "1 if some node holds an address, else 0.", "address")
	leaseLeft     = metric("lease_remaining_seconds", "What remains of this node's lease; 0 if it may be over.")
	nodesKnown    = metric("cluster_nodes", "Nodes whose leases last.")
	drainedIs     = metric("agent_drained", "1 if this node takes no addresses.")
	fenceBroken   = metric("agent_fence_broken", "1 if the fence could not be changed.")
	leaseRenewals = metric("lease_renewals_total", "Renewals of the lease, by their outcome.", "outcome")
	leasesLost    = metric("leases_lost_total", "Leases that were over when they were to be renewed.")
	vipsOpened    = metric("vips_opened_total", "Addresses that this node began to announce.")
	vipsGiven     = metric("vips_given_total", "Addresses that this node gave back.")
	vipsLapsed    = metric("vips_lapsed_total", "Addresses that fell silent since the lease was not renewed in time.")
	vipConflicts  = metric("vip_conflicts_total", "Times that another machine was heard to use an address of ours.")
	policyVersion = metric("cluster_policy_version", "The version of the cluster's policy that is in force here; 0 for none.")
	policyWanted  = metric("cluster_policy_wanted", "The version of the cluster's policy that this node is to have now.")
	policyFailed  = metric("cluster_policy_failures_total", "Versions of the cluster's policy that this node could not take, each time it tried.")
	fenceFailures = metric("agent_fence_failures_total", "Changes of the fence that failed.")
)

// agentCollector asks the agent at each scrape.
type agentCollector struct {
	agent *cluster.Agent
	node  *policy.Node // nil without the cluster's policy
}

// Describe implements prometheus.Collector.
func (c agentCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{vipHeld, vipOwned, leaseLeft, nodesKnown, drainedIs, fenceBroken, leaseRenewals, leasesLost,
		vipsOpened, vipsGiven, vipsLapsed, vipConflicts, fenceFailures, policyVersion, policyWanted, policyFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c agentCollector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	n := &c.agent.Count
	count(leaseRenewals, n.Renewed.Load(), "done")
	count(leaseRenewals, n.RenewFailed.Load(), "failed")
	count(leasesLost, n.LeasesLost.Load())
	count(vipsOpened, n.Opened.Load())
	count(vipsGiven, n.Given.Load())
	count(vipsLapsed, n.Lapsed.Load())
	count(vipConflicts, n.Conflicts.Load())
	count(fenceFailures, n.Failed.Load())

	if c.node != nil {
		count(policyFailed, c.node.Failed.Load())
		ch <- prometheus.MustNewConstMetric(policyVersion, prometheus.GaugeValue, float64(c.node.InForce.Load()))
		ch <- prometheus.MustNewConstMetric(policyWanted, prometheus.GaugeValue, float64(c.node.Wanted.Load()))
	}

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s, err := c.agent.Status(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(vipHeld, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, a := range s.Addresses {
		gauge(vipHeld, truth(a.Open), a.Address.String(), a.Interface)
		gauge(vipOwned, truth(a.Node != ""), a.Address.String())
	}
	if s.Lease != nil {
		gauge(leaseLeft, s.Lease.Seconds())
	}
	gauge(nodesKnown, float64(len(s.Nodes)))
	gauge(drainedIs, truth(s.Drained))
	gauge(fenceBroken, truth(s.Fault != ""))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// serveAgentMetrics listens at the configuration's `metrics`: the agent's, and those of what is in force.
func serveAgentMetrics(addr string, a *cluster.Agent, n *policy.Node, t *term) (*metricsServer, error) {
	if addr == "" {
		return &metricsServer{}, nil
	}
	l, err := listenMetrics(addr)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(agentCollector{a, n}, &collector{t.machine.host, &reloadCount{}},
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return &metricsServer{l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}
