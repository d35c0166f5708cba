package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/postern-fw/postern/kernel"
)

// metricsServer is nothing where no --metrics is asked for.
type metricsServer struct {
	listener net.Listener
	http     *http.Server
}

func (r *runner) newMetrics() (*metricsServer, error) {
	if r.metrics == "" {
		return &metricsServer{}, nil
	}
	l, err := listenMetrics(r.metrics)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&collector{r.t.machine.host, &r.count})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return &metricsServer{l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}

// listenMetrics listens where only this machine reaches it: rules, sets and interfaces
// are nobody else's business.
func listenMetrics(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		// One that a killed process left behind; what is no socket stays.
		if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
			_ = os.Remove(path)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, &exitError{exitMachine, fmt.Errorf("--metrics: %w", err)}
		}
		return l, nil
	}
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, usageError("--metrics: %w; write host:port, such as 127.0.0.1:9477, or unix:PATH", err)
	}
	if !tcp.IP.IsLoopback() {
		return nil, usageError("--metrics: %s is not on the loopback interface, such as 127.0.0.1:9477; let a proxy that asks who is there serve others", addr)
	}
	l, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, &exitError{exitMachine, fmt.Errorf("--metrics: %w", err)}
	}
	return l, nil
}

func (m *metricsServer) serve() error {
	if m.listener == nil {
		return nil
	}
	if err := m.http.Serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

func (m *metricsServer) Close() error {
	if m.listener == nil {
		return nil
	}
	err := m.http.Close()
	_ = m.listener.Close() // if it was not served
	return err
}

// collector asks the kernel at each scrape.
type collector struct {
	host  enforcer
	count *reloadCount
}

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("postern_"+name, help, labels, nil)
}

var (
	ruleFrames  = metric("rule_frames_total", "Frames that matched a rule; the default and malformed frames count as rules.", "rule")
	ruleBytes   = metric("rule_bytes_total", "Bytes of the frames that matched a rule.", "rule")
	lostEvents  = metric("events_lost_total", "Events that found no room.")
	setElements = metric("set_elements", "Elements of a set.", "set")
	guarded     = metric("interface_guarded", "1 if the interface is guarded, 0 if the policy wants it to be and it is not.", "interface", "direction")
	reloadsDone = metric("reloads_total", "Policies put in force by postern run after its first.")
	reloadsBad  = metric("reloads_failed_total", "Policy files that were not put in force, which left the one before.")
	info        = metric("policy_info", "The policy in force, if there is one.", "policy", "file")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ruleFrames, ruleBytes, lostEvents, setElements, guarded, reloadsDone, reloadsBad, info} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, t prometheus.ValueType, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, float64(v), labels...)
	}
	tell(reloadsDone, prometheus.CounterValue, c.count.done.Load())
	tell(reloadsBad, prometheus.CounterValue, c.count.failed.Load())
	for _, part := range []func(telling) error{c.status, c.rules, c.sets} {
		if err := part(tell); err != nil && !errors.Is(err, kernel.ErrNothing) {
			ch <- prometheus.NewInvalidMetric(info, err)
		}
	}
}

type telling func(*prometheus.Desc, prometheus.ValueType, uint64, ...string)

func (c *collector) status(tell telling) error {
	s, err := c.host.Status()
	if err != nil {
		return err
	}
	if s.Enforcing {
		tell(info, prometheus.GaugeValue, 1, s.Policy, s.File)
	}
	tell(lostEvents, prometheus.CounterValue, s.LostEvents)
	// Where several guards of a policy name an interface, each must hold.
	is := map[[2]string]uint64{}
	for _, i := range s.Interfaces {
		is[[2]string{i.Name, i.Direction}] = 1
	}
	for _, i := range s.Interfaces {
		if !i.Guarded {
			is[[2]string{i.Name, i.Direction}] = 0
		}
	}
	for at, v := range is {
		tell(guarded, prometheus.GaugeValue, v, at[0], at[1])
	}
	return nil
}

func (c *collector) rules(tell telling) error {
	rules, err := c.host.Rules()
	for i := range rules {
		tell(ruleFrames, prometheus.CounterValue, rules[i].Frames, rules[i].Name)
		tell(ruleBytes, prometheus.CounterValue, rules[i].Bytes, rules[i].Name)
	}
	return err
}

func (c *collector) sets(tell telling) error {
	sets, err := c.host.Sets()
	for i := range sets {
		tell(setElements, prometheus.GaugeValue, uint64(sets[i].Elements), sets[i].Name)
	}
	return err
}
