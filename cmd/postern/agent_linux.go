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
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/cluster"
	speak "github.com/postern-fw/postern/cluster/announce"
	"github.com/postern-fw/postern/cluster/etcd"
	"github.com/postern-fw/postern/cluster/fence"
	"github.com/postern-fw/postern/cluster/health"
	"github.com/postern-fw/postern/cluster/policy"
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
one of the addresses leaves until an agent holds it. Beside an agent that runs it
changes nothing: the policy in force is that agent's.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return t.agentFence(file) },
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/postern/agent.yaml", "the configuration `FILE`")
	return cmd
}

// agentFence is in no agent's way: none begins while it works, and beside one that runs it does nothing.
func (t *term) agentFence(file string) error {
	c, err := agentConfig(file)
	if err != nil {
		return err
	}
	only, err := onlyAgent()
	if errors.Is(err, errOtherAgent) {
		return t.fencedAlready()
	}
	if err != nil {
		return err
	}
	defer only.Close()
	_, _, err = t.fence(c, nil)
	return t.refusedFence(err)
}

// fencedAlready is what there is to say beside an agent: that its policy is in force.
func (t *term) fencedAlready() error {
	s, err := t.machine.host.Status()
	switch {
	case err != nil:
		return t.refused(err)
	case !s.Enforcing:
		return &exitError{exitMachine, errors.New("a process is the agent of this network namespace, and no policy is in force: start the agent anew")}
	}
	fmt.Fprintf(t.out, "an agent runs, and has the policy %s in force: nothing is changed\n", s.Policy)
	return nil
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

// fence puts the agent's policy in force, or the cluster's last good one behind the fence.
func (t *term) fence(c *cluster.Config, interfaces []string) (*fence.Fence, lastGood, error) {
	if c.Policy != nil {
		return t.clusterFence(c, interfaces)
	}
	src := kernel.Source{Name: "postern-agent.yaml", Text: fence.Policy(c)}
	if c.Fence.Policy != "" {
		text, err := os.ReadFile(c.Fence.Policy)
		if err != nil {
			return nil, lastGood{}, fileError(err)
		}
		src = kernel.Source{Name: c.Fence.Policy, Text: text}
	}
	door, err := fence.Raise(t.machine.host, c, src, interfaces)
	return door, lastGood{}, err
}

// refusedFence is refused, for a fence: the policy is to blame where it is none.
func (t *term) refusedFence(err error) error {
	var sorted *exitError
	switch {
	case errors.As(err, &sorted):
		return sorted
	case errors.Is(err, fence.ErrNoFence):
		return &exitError{exitNo, err}
	}
	return t.refused(err)
}

// agent is a node's, until ctx is done.
func (t *term) agent(ctx context.Context, file string) error {
	c, err := agentConfig(file)
	if err != nil {
		return err
	}
	if err := cluster.CheckClock(); err != nil {
		return &exitError{exitMachine, err}
	}
	cookie, err := t.machine.host.Cookie()
	if err != nil {
		return t.refused(err)
	}
	log := newLog(t.errs).With("node", c.Node)
	election, err := newElection(c, cookie, log)
	if err != nil {
		return &exitError{exitNo, fmt.Errorf("%s: etcd: %w", file, err)}
	}
	only, err := onlyAgent()
	if err != nil {
		return err
	}
	defer only.Close()
	mux := http.NewServeMux()
	server, err := control.ListenHandler(agentSocket(t.machine.sockets, cookie), mux)
	if err != nil {
		return agentRunning(t, err)
	}
	defer server.Close()
	carried := carrier(c)
	// Before the fence is one that does not know them.
	if err := carried.Forget(); err != nil {
		log.Error("taking addresses of an agent before off their interfaces: " + err.Error())
	}
	door, good, err := t.raise(c)
	if err != nil {
		return err
	}
	silent, silence := context.WithCancel(context.Background())
	defer silence()
	agent, err := newNode(silent, c, cluster.Parts{Config: c, Election: election, Door: door, Now: cluster.BootTime, Log: log}, door)
	if err != nil {
		return t.refused(err)
	}
	serveAgent(mux, agent, election)
	var node *policy.Node
	take := func(context.Context) error { return nil }
	if c.Policy != nil {
		node = t.clusterNode(c, election.(*etcd.Election), door, good, log)
		take = node.Run
	}
	metrics, err := serveAgentMetrics(c.Metrics, agent, node, t)
	if err != nil {
		return err
	}
	defer metrics.Close()
	return t.runAgent(ctx, agent, server, metrics, take, func(ctx context.Context) { watchFence(ctx, agent, door, c) })
}

// raise puts the fence in force, with every address shut.
func (t *term) raise(c *cluster.Config) (*fence.Fence, lastGood, error) {
	for _, name := range c.Interfaces() {
		if _, err := net.InterfaceByName(name); err != nil {
			return nil, lastGood{}, &exitError{exitMachine, fmt.Errorf("interface %s: %w", name, err)}
		}
	}
	door, good, err := t.fence(c, c.Interfaces())
	if err == nil && door != nil {
		// What an agent before left open: whether it is ours is found out first.
		err = door.Only()
	}
	return door, good, t.refusedFence(err)
}

// newNode makes an agent. It can speak until silent is done.
func newNode(silent context.Context, c *cluster.Config, parts cluster.Parts, door *fence.Fence) (agent *cluster.Agent, err error) {
	interfaces := interfaces(c)
	conflict := func(a netip.Addr, by net.HardwareAddr) { agent.Conflict(a, by.String()) }
	if parts.Voice, err = speak.New(silent, announceOptions(c, parts.Log, door, conflict), interfaces); err != nil {
		return nil, err
	}
	if *c.OnInterface {
		parts.Carrier = carrier(c)
	}
	if len(c.Checks) > 0 {
		parts.Health = func(ctx context.Context, fn func(string, bool, string)) { health.Run(ctx, checks(c), fn) }
	}
	// Nothing is announced, and so in conflict, before it runs.
	agent = cluster.New(parts)
	return agent, nil
}

// runAgent ends when the agent does; whatever else ends with an error ends it.
func (t *term) runAgent(ctx context.Context, agent *cluster.Agent, server *control.Server, metrics *metricsServer, take func(context.Context) error, watch func(context.Context)) error {
	log := agent.Log
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	jobs, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { notifySystemd(log, daemon.SdNotifyStopping) })()
	jobs.Go(server.Serve)
	jobs.Go(metrics.serve)
	jobs.Go(func() error {
		defer func() { stop(); _ = server.Close(); _ = metrics.Close() }()
		return agent.Run(ctx)
	})
	jobs.Go(func() error { tellAlive(ctx, agent, log); return nil })
	jobs.Go(func() error { watch(ctx); return nil })
	jobs.Go(func() error { return take(ctx) })
	// An interface that is made anew is guarded anew.
	jobs.Go(func() error { return unlessDone(ctx, t.machine.host.Follow(ctx, log)) })
	notifySystemd(log, daemon.SdNotifyReady)
	err := jobs.Wait()
	if errors.Is(err, cluster.ErrNameTaken) || errors.Is(err, etcd.ErrRefused) {
		return &exitError{exitNo, err}
	}
	return t.refused(err)
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

// watchFence has the agent hold nothing while the fence is not in force: somebody took it away, or an
// interface is not guarded any more.
func watchFence(ctx context.Context, a *cluster.Agent, door *fence.Fence, c *cluster.Config) {
	if door == nil {
		return // without addresses there is none
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.Trust(door.Check(c.Interfaces()))
		case <-ctx.Done():
			return
		}
	}
}
