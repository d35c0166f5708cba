package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/cluster"
	speak "github.com/postern-fw/postern/cluster/announce"
	"github.com/postern-fw/postern/cluster/etcd"
	"github.com/postern-fw/postern/cluster/fence"
	"github.com/postern-fw/postern/cluster/health"
	"github.com/postern-fw/postern/internal/control"
)

// newElection is in etcd, or that of a node that is alone.
func newElection(c *cluster.Config, cookie uint64, log *slog.Logger) (cluster.Election, error) {
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
	var told time.Time
	failed := func(err error) {
		if now := time.Now(); now.Sub(told) > 10*time.Second {
			told = now
			log.Warn("what the cluster does is not known: " + err.Error())
		}
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

// interfaces are those of the addresses.
func interfaces(c *cluster.Config) map[netip.Addr]string {
	list := map[netip.Addr]string{}
	for _, a := range c.Addresses {
		list[a.Addr] = a.Interface
	}
	return list
}

// carrier has the addresses that the agent puts on interfaces, which may be none.
func carrier(c *cluster.Config) cluster.Interfaces {
	if !*c.OnInterface {
		return nil
	}
	return interfaces(c)
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

var errOtherAgent = errors.New("another process is the agent of this network namespace already; postern vips asks it")

// onlyAgent makes this process the network namespace's only agent, or fails. Two would share an
// instance, and so a lease. The name is an abstract one (unix(7)), which belongs to the network namespace:
// a lock in a file system would not be seen from a container with another one.
func onlyAgent() (io.Closer, error) {
	const name = "@postern-agent"
	l, err := net.Listen("unix", name)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, &exitError{exitMachine, errOtherAgent}
	}
	if err != nil {
		return nil, &exitError{exitMachine, fmt.Errorf("making this the namespace's only agent: %w", err)}
	}
	return l, nil
}

func agentRunning(t *term, err error) error {
	var running *control.RunningError
	if errors.As(err, &running) {
		return &exitError{exitMachine, fmt.Errorf("process %d has the agent's control socket", running.PID)}
	}
	return t.refused(err)
}
