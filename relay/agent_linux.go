package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/live"
	"github.com/postern-fw/postern/relay/wire"
)

// Agent is a relay agent, or a listener, in the network namespace of the thread that has
// called New.
type Agent struct {
	config *Config
	log    *slog.Logger
	table  *binding.Table
	store  *binding.Store
	ledger *ledger
	guard  *firewall.Firewall
	event  func(*Event)
	events limiter
	// retries are answers that are looked at again.
	retries limiter

	jobs *errgroup.Group
	udp  *wire.Socket

	mu       sync.RWMutex
	ports    map[string]*port
	circuits map[string]*circuit // by circuit ID
	giaddrs  map[uint32]bool
	servers  map[uint32]*counters
	// strangers counts what comes from addresses that are no servers'.
	strangers counters
}

// Options are what New may be told beside the configuration.
type Options struct {
	Log *slog.Logger
	// Sets are those of the firewall in force; nil leaves it alone.
	Sets live.Sets
	// Event is told of what somebody has forged.
	Event func(*Event)
}

// New opens the database and loads the bindings. The caller closes the agent.
func New(c *Config, o Options) (*Agent, error) {
	a := &Agent{config: c, log: o.Log, event: o.Event, table: binding.NewTable(), ports: map[string]*port{},
		circuits: map[string]*circuit{}, giaddrs: map[uint32]bool{}, servers: map[uint32]*counters{}}
	for _, list := range append([]Interface{{Servers: c.Servers}}, c.Interfaces...) {
		for _, s := range list.Servers {
			a.servers[uint32(s)] = new(counters)
		}
	}
	var err error
	if a.guard, err = c.guard(); err != nil {
		return nil, err
	}
	if a.store, err = binding.Open(c.Database); err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		a.store.Close()
		return nil, err
	}
	var set *live.Set
	if c.Set != "" && o.Sets != nil {
		set = live.New(o.Sets, c.Set, a.log)
	}
	a.ledger = newLedger(a.store, a.table, set, a.log)
	return a, nil
}

func (a *Agent) load() error {
	var list []binding.Change
	apply := func() {
		a.table.Apply(list, func(binding.Binding) {})
		list = list[:0]
	}
	err := a.store.Load(func(b binding.Binding) {
		if list = append(list, binding.Change{Binding: b}); len(list) == 1024 {
			apply()
		}
	})
	apply()
	a.table.Apply(a.config.bindings(), func(binding.Binding) {})
	return err
}

// Close closes the database.
func (a *Agent) Close() error { return a.store.Close() }

// Run relays until the context ends. ready is called when everything is open.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	jobs, ctx := errgroup.WithContext(ctx)
	a.jobs = jobs
	if a.config.Mode == ModeRelay {
		var err error
		if a.udp, err = wire.UDP(); err != nil {
			return err
		}
	}
	links := make(chan netlink.LinkUpdate, 256)
	done := make(chan struct{})
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{}); err != nil {
		return fmt.Errorf("changes of interfaces: %w", err)
	}
	addrs := make(chan netlink.AddrUpdate, 256)
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{}); err != nil {
		return fmt.Errorf("changes of addresses: %w", err)
	}
	a.refresh(true)
	jobs.Go(func() error { return a.ledger.run(ctx) })
	if a.udp != nil {
		jobs.Go(func() error { return a.udp.Read(a.answers) })
	}
	jobs.Go(func() error {
		defer close(done)
		a.follow(ctx, links, addrs)
		return nil
	})
	ready()
	return jobs.Wait()
}

// follow opens interfaces as they come, or get their address, until the context ends.
func (a *Agent) follow(ctx context.Context, links <-chan netlink.LinkUpdate, addrs <-chan netlink.AddrUpdate) {
	defer a.shut()
	for told := true; told; {
		select {
		case <-ctx.Done():
			return
		case _, told = <-links:
		case _, told = <-addrs:
		}
		// One look is enough for all that has happened so far.
		for len(links) > 0 {
			<-links
		}
		for len(addrs) > 0 {
			<-addrs
		}
		a.refresh(false)
	}
	a.log.Error("changes of interfaces are not told any more: those that come now are not served; start again")
	<-ctx.Done()
}

func (a *Agent) shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.ports {
		p.close()
	}
	if a.udp != nil {
		_ = a.udp.Close()
	}
}

// refresh opens the interfaces that are there now, and closes those that are not.
func (a *Agent) refresh(first bool) {
	list, err := net.Interfaces()
	if err != nil {
		a.log.Error("interfaces", "error", err)
		return
	}
	there := map[string]int{}
	for i := range list {
		ifi := &list[i]
		if len(a.config.vlans(ifi.Name)) == 0 {
			continue
		}
		there[ifi.Name] = ifi.Index
		if a.reads(ifi) {
			continue
		}
		switch err := a.open(ifi); {
		case err == nil:
			a.log.Info("serving", "interface", ifi.Name)
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
		case first:
			a.log.Warn("not served", "interface", ifi.Name, "error", err)
		default:
			a.log.Debug("not served", "interface", ifi.Name, "error", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, p := range a.ports {
		if !p.gone && there[name] != p.ifi.Index {
			a.forget(p)
			p.gone = true
		}
	}
}

func (a *Agent) reads(ifi *net.Interface) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	p := a.ports[ifi.Name]
	return p != nil && !p.gone && p.ifi.Index == ifi.Index && string(p.ifi.HardwareAddr) == string(ifi.HardwareAddr) && p.first == firstAddress(ifi)
}

// Counters are all that is not 0.
func (a *Agent) Counters() (list []Count) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for name, p := range a.ports {
		list = append(list, p.list(Count{Interface: name})...)
	}
	for ip, s := range a.servers {
		list = append(list, s.list(Count{Server: binding.IPv4(ip).String()})...)
	}
	return append(list, a.strangers.list(Count{Server: "unknown"})...)
}

// Len is the number of bindings.
func (a *Agent) Len() int { return a.table.Len() }
