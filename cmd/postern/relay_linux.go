package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/relay"
	"github.com/postern-fw/postern/relay/live"
)

func newRelay(t *term) *cobra.Command {
	r := relayCommand{t: t}
	cmd := &cobra.Command{
		Use:   "relay --config FILE",
		Short: "Relay DHCP, and learn who holds which address",
		Long: `relay leads the messages of DHCP clients to servers in other networks, and the
servers' answers back. It learns who holds which address, keeps that on disk, and puts
it into a set of the policy in force, by which ARP and DHCP of everyone else are
judged. With "mode: snoop" it relays nothing, and learns from what passes the ports
of a bridge.

An ACK gets to its client when its binding is on disk. What was put into the set
stays there when relay ends, until each lease does.

It reads its configuration again when that changes or at SIGHUP: bindings stay, and
what clients have asked is answered. A file that is wrong is reported and changes
nothing. To systemd it is a service of Type=notify-reload.

It prints what nobody honest sends: a line, or with --json an object.`,
		Example: `  postern relay --config /etc/postern/relay.yaml
  postern relay --config relay.yaml --metrics 127.0.0.1:9478 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return r.run(ctx)
		},
	}
	configFlag(cmd, &r.config)
	cmd.Flags().StringVar(&r.metrics, "metrics", "", "serve Prometheus metrics at `ADDR`: host:port on the loopback interface, or unix:PATH")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "one object an event")
	cmd.Flags().BoolVarP(&r.quiet, "quiet", "q", false, "print no events")
	return cmd
}

func configFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVarP(to, "config", "c", "", "the relay's configuration `FILE`")
	_ = cmd.MarkFlagRequired("config") // the flag is there
}

// relayCommand is a `postern relay`.
type relayCommand struct {
	t               *term
	config, metrics string
	asJSON, quiet   bool
}

// readRelayConfig reads a relay.yaml. What is wrong with it goes to errs.
func readRelayConfig(t *term, name string) (c *relay.Config, text []byte, err error) {
	if text, err = os.ReadFile(name); err != nil {
		return nil, nil, fileError(err)
	}
	if c, err = relay.ParseConfig(name, text); err != nil {
		fmt.Fprintln(t.errs, err)
		return nil, nil, answerNo
	}
	return c, text, nil
}

func (r *relayCommand) run(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	defer signal.Stop(hangups)
	c, text, err := readRelayConfig(r.t, r.config)
	if err != nil {
		return err
	}
	o := relay.Options{Log: newLog(r.t.errs)}
	if !r.quiet {
		o.Event = r.print
	}
	if len(c.Set) > 0 {
		o.Sets = r.sets(c)
	}
	agent, err := relay.New(c, o)
	if err != nil {
		return r.t.refused(err)
	}
	defer agent.Close()
	control, err := agent.Listen()
	if err != nil {
		return r.t.refused(err)
	}
	defer control.Close()
	metrics, err := r.newMetrics(agent)
	if err != nil {
		return err
	}
	defer metrics.Close()
	watch, err := watchFile(r.config)
	if err != nil {
		return &exitError{exitMachine, err}
	}
	defer watch.Close()
	jobs, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = metrics.Close() })()
	jobs.Go(metrics.serve)
	jobs.Go(func() error { return agent.Serve(ctx, control) })
	jobs.Go(func() error { watch.run(ctx, o.Log); return nil })
	jobs.Go(func() error {
		return agent.Run(ctx, func() {
			o.Log.Info("ready", "bindings", agent.Len())
			reloads := relayReloads{r.t, agent, o.Log, r.config, text, hangups}
			jobs.Go(func() error { reloads.run(ctx, watch.changed); return nil })
		})
	})
	if err := jobs.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return r.t.refused(err)
	}
	return nil
}

// sets are those of the policy in force.
func (r *relayCommand) sets(c *relay.Config) live.Sets {
	if c.BPFFS != "" {
		return kernel.Host{Root: c.BPFFS}
	}
	return r.t.machine.host
}

// print tells of an event.
func (r *relayCommand) print(e *relay.Event) {
	if r.asJSON {
		_ = newJSON(r.t.out).Encode(e) // who does not read it any more has gone
		return
	}
	from := e.Interface
	if e.VLAN != 0 {
		from += ":" + strconv.Itoa(int(e.VLAN))
	}
	if e.Server != nil {
		from = "server " + e.Server.String()
	} else if e.Sender != nil {
		from += " " + e.Sender.String()
	}
	fmt.Fprintf(r.t.out, "%s  %-28s  %s  chaddr %s  type %d  xid %#08x\n", e.Time.Format("2006-01-02 15:04:05.000000"), e.Reason, from, e.MAC, e.Type, e.XID)
	if e.Missed > 0 {
		fmt.Fprintf(r.t.errs, "postern: %d events before this one were too many\n", e.Missed)
	}
}

func (r *relayCommand) newMetrics(agent *relay.Agent) (*metricsServer, error) {
	if r.metrics == "" {
		return &metricsServer{}, nil
	}
	l, err := listenMetrics(r.metrics)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(relayCollector{agent})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return &metricsServer{l, &http.Server{Handler: mux}}, nil
}

// relayCollector asks the agent at each scrape.
type relayCollector struct{ agent *relay.Agent }

var (
	relayMessages = metric("relay_messages_total", "DHCP messages relayed, by where they came from.", "interface", "server", "type")
	relayDropped  = metric("relay_dropped_total", "DHCP messages dropped, by where they came from.", "interface", "server", "reason")
	relayBindings = metric("relay_bindings", "Addresses that clients hold.")
)

// Describe implements prometheus.Collector.
func (relayCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{relayMessages, relayDropped, relayBindings} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c relayCollector) Collect(ch chan<- prometheus.Metric) {
	for _, n := range c.agent.Counters() {
		d, label := relayMessages, n.Type
		if n.Reason != "" {
			d, label = relayDropped, n.Reason
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.N), n.Interface, n.Server, label)
	}
	ch <- prometheus.MustNewConstMetric(relayBindings, prometheus.GaugeValue, float64(c.agent.Len()))
}
