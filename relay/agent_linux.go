package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"

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
	config atomic.Pointer[Config]
	snoops bool // it is a listener, and not a relay agent
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

	// opening is held by who opens and closes interfaces; none is opened when all has ended.
	opening sync.Mutex
	ended   bool

	mu    sync.RWMutex
	ports map[string]*port
	// circuits are by circuit ID, also those of a configuration of a while ago; places has those
	// in force.
	circuits map[string]*circuit
	places   map[binding.Place]*circuit
	// giaddrs are the addresses at which servers may answer, each with the instant of CLOCK_BOOTTIME until which they may:
	// inForce, or for a while after another took its place.
	giaddrs map[uint32]int64
	servers map[uint32]*server
	lists   bool // there is a list of servers
	// strangers counts what comes from addresses that are no servers'.
	strangers counters
}

// server is one that is believed as long as it is listed.
type server struct {
	counters
	listed bool
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
	a := &Agent{snoops: c.Mode == ModeSnoop, log: o.Log, event: o.Event, table: binding.NewTable(), ports: map[string]*port{},
		circuits: map[string]*circuit{}, places: map[binding.Place]*circuit{}, giaddrs: map[uint32]int64{}, servers: map[uint32]*server{}}
	a.configure(c)
	policy, err := c.guard()
	if err != nil {
		return nil, err
	}
	if a.guard, err = firewall.New(policy); err != nil {
		return nil, err
	}
	if a.store, err = binding.Open(c.Database); err != nil {
		return nil, err
	}
	a.ledger = newLedger(a.store, a.table, a.log)
	if o.Sets != nil {
		for _, name := range c.Set {
			a.ledger.sets.Sets = append(a.ledger.sets.Sets, live.New(o.Sets, name, a.table.Get, a.log))
		}
	}
	if err := a.load(c); err != nil {
		a.store.Close()
		return nil, err
	}
	return a, nil
}

// configure takes a configuration's servers, and what follows from it as a whole.
func (a *Agent) configure(c *Config) {
	for _, s := range a.servers {
		s.listed = false
	}
	a.lists = false
	for _, list := range append([]Interface{{Servers: c.Servers}}, c.Interfaces...) {
		for _, ip := range list.Servers {
			s := a.servers[uint32(ip)]
			if s == nil {
				s = &server{}
				a.servers[uint32(ip)] = s
			}
			s.listed, a.lists = true, true
		}
	}
	a.config.Store(c)
}

// load reads the database, and brings it in step with the configuration's own bindings.
func (a *Agent) load(c *Config) error {
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
	if err != nil {
		return err
	}
	changes := c.static(a.table.All())
	if err := a.store.Commit(changes); err != nil {
		a.log.Error("the static bindings could not be written: those of before are in force until they are", "error", err)
		a.ledger.owed = c
	} else {
		a.table.Apply(changes, func(binding.Binding) {})
	}
	var ended []binding.Binding
	err = a.store.Leaving(func(b binding.Binding) { ended = append(ended, b) })
	a.ledger.sets.Leave(ended)
	return err
}

// Close closes the database.
func (a *Agent) Close() error { return a.store.Close() }

// Run relays until the context ends. ready is called when everything is open.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	jobs, ctx := errgroup.WithContext(ctx)
	a.jobs = jobs
	if !a.snoops {
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
	a.opening.Lock()
	defer a.opening.Unlock()
	a.ended = true
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
	a.opening.Lock()
	defer a.opening.Unlock()
	if a.ended {
		return
	}
	config := a.config.Load()
	list, err := net.Interfaces()
	if err != nil {
		a.log.Error("interfaces", "error", err)
		return
	}
	there := map[string]int{}
	for i := range list {
		ifi := &list[i]
		if len(config.vlans(ifi.Name)) == 0 {
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
			a.index()
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
