package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/cluster"
	speak "github.com/postern-fw/postern/cluster/announce"
	"github.com/postern-fw/postern/cluster/etcd"
	"github.com/postern-fw/postern/cluster/fence"
	"github.com/postern-fw/postern/cluster/health"
	"github.com/postern-fw/postern/internal/control"
	"github.com/postern-fw/postern/kernel"
)

func newAgent(t *term) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "agent --config FILE",
		Short: "Announce the virtual addresses whose leases this node holds, and no others",
		Long: `agent takes part in the cluster that its configuration names: it holds virtual
addresses by a lease in etcd, announces them by ARP, and gives them to other nodes
when it is drained, when a check fails, or when it ends. Without etcd the node is
alone, and holds all.

What speaks for an address that this node does not hold does not leave its interface,
whoever sends it: the kernel sees to that, by a deadline that is fixed before the
lease is renewed. A node that is killed, frozen or cut off falls silent by itself
before another one speaks.

Exit code 0 at an interrupt or SIGTERM.`,
		Example: `  postern agent --config /etc/postern/agent.yaml
  postern agent drain
  postern vips`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return t.agent(ctx, file)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/postern/agent.yaml", "the configuration `FILE`")
	cmd.AddCommand(newAgentDrain(t), newAgentUndrain(t), newAgentFence(t))
	return cmd
}

func newAgentFence(t *term) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "fence --config FILE",
		Short: "Put the fence of the agent in force, with every address shut, and exit",
		Long: `fence is for the time before the network is up: from then on nothing that speaks for
one of the addresses leaves until an agent holds it. An agent that runs already is
not disturbed.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := agentConfig(file)
			if err != nil {
				return err
			}
			if _, err := t.fence(c, nil); err != nil {
				return t.refused(err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/postern/agent.yaml", "the configuration `FILE`")
	return cmd
}

func agentConfig(file string) (*cluster.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fileError(err)
	}
	c, err := cluster.ParseConfig(file, text)
	if err != nil {
		return nil, &exitError{exitNo, err}
	}
	return c, nil
}

// fence puts the agent's policy in force.
func (t *term) fence(c *cluster.Config, interfaces []string) (*fence.Fence, error) {
	src := kernel.Source{Name: "postern-agent.yaml", Text: fence.Policy(c)}
	if c.Fence.Policy != "" {
		text, err := os.ReadFile(c.Fence.Policy)
		if err != nil {
			return nil, fileError(err)
		}
		src = kernel.Source{Name: c.Fence.Policy, Text: text}
	}
	return fence.Raise(t.machine.host, src, interfaces)
}

// agent is a node's, until ctx is done.
func (t *term) agent(ctx context.Context, file string) error {
	c, err := agentConfig(file)
	if err != nil {
		return err
	}
	log := newLog(t.errs).With("node", c.Node)
	if err := cluster.CheckClock(); err != nil {
		return &exitError{exitMachine, err}
	}
	cookie, err := t.machine.host.Cookie()
	if err != nil {
		return t.refused(err)
	}
	var told time.Time
	election, err := newElection(c, cookie, func(err error) {
		if now := time.Now(); now.Sub(told) > 10*time.Second {
			told = now
			log.Warn("what the cluster does is not known: " + err.Error())
		}
	})
	if err != nil {
		return &exitError{exitNo, fmt.Errorf("%s: etcd: %w", file, err)}
	}
	mux := http.NewServeMux()
	// The socket comes first: whoever has it is this network namespace's only agent.
	server, err := control.ListenHandler(agentSocket(t.machine.sockets, cookie), mux)
	if err != nil {
		return agentRunning(t, err)
	}
	defer server.Close()
	if _, err := netInterfaces(c); err != nil {
		return &exitError{exitMachine, err}
	}
	door, err := t.fence(c, c.Interfaces())
	if err != nil {
		return t.refused(err)
	}
	// What an agent before left open: whether it is ours is found out first.
	if err := door.Only(); err != nil {
		return t.refused(err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	parts := cluster.Parts{Config: c, Election: election, Door: door, Now: cluster.BootTime, Log: log}
	var agent *cluster.Agent
	interfaces, _ := netInterfaces(c)
	voiceCtx, silence := context.WithCancel(context.Background())
	defer silence()
	voice, err := speak.New(voiceCtx, announceOptions(c, log, door, func(a netip.Addr, by net.HardwareAddr) { agent.Conflict(a, by.String()) }), interfaces)
	if err != nil {
		return t.refused(err)
	}
	parts.Voice = voice
	if *c.OnInterface {
		parts.Carrier = cluster.Interfaces(interfaces)
	}
	if len(c.Checks) > 0 {
		parts.Health = func(ctx context.Context, fn func(string, bool, string)) { health.Run(ctx, checks(c), fn) }
	}
	agent = cluster.New(parts)
	serveAgent(mux, agent, election)
	metrics, err := serveAgentMetrics(c.Metrics, agent, t)
	if err != nil {
		return err
	}
	defer metrics.Close()

	jobs, jctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(jctx, func() { notifySystemd(log, daemon.SdNotifyStopping) })()
	jobs.Go(server.Serve)
	jobs.Go(metrics.serve)
	jobs.Go(func() error {
		defer func() { stop(); _ = server.Close(); _ = metrics.Close() }()
		return agent.Run(jctx)
	})
	jobs.Go(func() error { tellAlive(jctx, agent, log); return nil })
	jobs.Go(func() error { watchFence(jctx, door, c, log); return nil })
	notifySystemd(log, daemon.SdNotifyReady)
	if err := jobs.Wait(); err != nil {
		if errors.Is(err, cluster.ErrNameTaken) || errors.Is(err, etcd.ErrRefused) {
			return &exitError{exitNo, err}
		}
		return t.refused(err)
	}
	return nil
}

// netInterfaces is where each address is. It fails if one of the interfaces is not there.
func netInterfaces(c *cluster.Config) (map[netip.Addr]string, error) {
	for _, name := range c.Interfaces() {
		if _, err := net.InterfaceByName(name); err != nil {
			return nil, fmt.Errorf("interface %s: %w", name, err)
		}
	}
	out := map[netip.Addr]string{}
	for _, a := range c.Addresses {
		out[a.Addr] = a.Interface
	}
	return out, nil
}

func notifySystemd(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("telling systemd: " + err.Error())
	}
}

// tellAlive tells systemd's watchdog that the agent does its work.
func tellAlive(ctx context.Context, a *cluster.Agent, log *slog.Logger) {
	alive, stop := watchdog()
	defer stop()
	for {
		select {
		case <-alive:
			if _, err := a.Status(ctx); err == nil {
				notifySystemd(log, daemon.SdNotifyWatchdog)
			}
		case <-ctx.Done():
			return
		}
	}
}

// watchFence tells when somebody took the fence away, or an interface is not guarded any more.
func watchFence(ctx context.Context, door *fence.Fence, c *cluster.Config, log *slog.Logger) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := door.Check(c.Interfaces()); err != nil {
				log.Error(err.Error())
			}
		case <-ctx.Done():
			return
		}
	}
}

func newElection(c *cluster.Config, cookie uint64, failed func(error)) (cluster.Election, error) {
	if c.Etcd == nil {
		return cluster.NewStandalone(c.Node), nil
	}
	client, err := dialEtcd(c)
	if err != nil {
		return nil, err
	}
	instance, err := cluster.Instance(cookie)
	if err != nil {
		return nil, err
	}
	return &etcd.Election{Client: client, Node: c.Node, Instance: instance, Lease: c.Lease, Margin: c.Margin, Now: cluster.BootTime, Failed: failed}, nil
}

// dialEtcd is a client for what the configuration says.
func dialEtcd(c *cluster.Config) (*etcd.Client, error) {
	e := c.Etcd
	cfg := etcd.Config{Endpoints: e.Endpoints, Prefix: e.Prefix, CA: e.CA, Cert: e.Cert, Key: e.Key, User: e.User, Timeout: c.Lease / 6}
	if e.PasswordFile != "" {
		b, err := os.ReadFile(e.PasswordFile)
		if err != nil {
			return nil, err
		}
		cfg.Password = strings.TrimSpace(string(b))
	}
	return etcd.Dial(cfg)
}

func announceOptions(c *cluster.Config, log *slog.Logger, door *fence.Fence, conflict func(netip.Addr, net.HardwareAddr)) speak.Options {
	a := c.Announce
	return speak.Options{
		Count: a.Count, Interval: a.Interval, Refresh: a.Refresh, Rate: a.Rate, Burst: a.Burst, Defend: a.Defend, Probe: a.ProbeInterval,
		Listen: func(ifi *net.Interface) (net.PacketConn, error) {
			return afpacket.Listen(ifi, afpacket.Raw, unix.ETH_P_ARP, &afpacket.Config{Firewall: door.Firewall})
		},
		Conflict: conflict, Log: log,
	}
}

func checks(c *cluster.Config) map[string]health.Check {
	out := map[string]health.Check{}
	for name, k := range c.Checks {
		out[name] = health.Check(k)
	}
	return out
}

// agentSocket is the agent's control socket of a network namespace.
func agentSocket(dir string, cookie uint64) string {
	return filepath.Join(dir, "agent-"+strconv.FormatUint(cookie, 10)+".sock")
}

func agentRunning(t *term, err error) error {
	var running *control.RunningError
	if errors.As(err, &running) {
		return &exitError{exitMachine, fmt.Errorf("process %d is the agent of this network namespace already", running.PID)}
	}
	return t.refused(err)
}
