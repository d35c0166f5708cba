package relay

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/live"
)

const (
	// maxWaiting is how many ACKs may wait for the disk. More are dropped, and asked for
	// again: the servers' messages must not pile up here without bound.
	maxWaiting = 16384
	// maxTogether is how many bindings one transaction writes.
	maxTogether = 2048
	// gather is the least time between two transactions of ACKs: what comes meanwhile is written
	// together, since each transaction costs as much as dozens of bindings in it.
	gather = 2 * time.Millisecond
	// expireEvery is how often ended leases are looked for.
	expireEvery = 10 * time.Second
)

// entry is changes to bindings, and the ACK that may go out when they are on disk.
type entry struct {
	changes [2]binding.Change
	n       int
	parcel  parcel
	// done is told how it went, if it is not nil.
	done chan<- error
	many []binding.Change // in place of changes, for imports
	// static is a configuration whose static bindings are to take the place of those there are.
	static *Config
}

// ledger writes bindings: to disk first, then into the table and the firewall's set, and
// only then it lets the ACKs go. What waits meanwhile is written together.
type ledger struct {
	store   *binding.Store
	table   *binding.Table
	sets    live.Group
	log     *slog.Logger
	waiting chan entry
	ended   chan struct{} // closed when nothing is written any more
	quiet   limiter
	// left are bindings that have left the sets: the database need not remember them.
	left []binding.Binding
	// owed is the configuration whose static bindings could not be written yet.
	owed *Config
}

func newLedger(s *binding.Store, t *binding.Table, log *slog.Logger) *ledger {
	return &ledger{store: s, table: t, log: log, waiting: make(chan entry, maxWaiting), ended: make(chan struct{})}
}

// enter is false if there is no room.
func (l *ledger) enter(e entry) bool {
	select {
	case l.waiting <- e:
		return true
	default:
		return false
	}
}

// record writes what an entry has, and returns when that is written.
func (l *ledger) record(ctx context.Context, e entry) error {
	done := make(chan error, 1)
	e.done = done
	select {
	case l.waiting <- e:
	case <-l.ended:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-l.ended:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes until the context ends.
func (l *ledger) run(ctx context.Context) error {
	defer close(l.ended)
	l.sync()
	expire := time.NewTicker(expireEvery)
	defer expire.Stop()
	var page page
	var last time.Time // when ACKs were written
	for {
		page.clear()
		select {
		case <-ctx.Done():
			return nil
		case <-expire.C:
			l.tick(&page)
		case e := <-l.waiting:
			page.add(e)
			time.Sleep(gather - time.Since(last))
			page.fill(l.waiting)
			last = time.Now()
			l.write(&page)
		}
	}
}

// tick does what is to be done now and then.
func (l *ledger) tick(p *page) {
	l.sync()
	p.changes, p.static = l.table.Expired(binding.BootTime(), maxTogether), l.owed
	l.write(p)
}

// sync brings the sets in step that are not, such as those of a policy that comes into force.
func (l *ledger) sync() {
	l.sets.Look()
	if l.sets.Behind() {
		l.left = append(l.left, l.sets.Sync(l.table.All())...)
	}
}

// page is what is written together.
type page struct {
	changes []binding.Change
	entries []entry
	ended   []binding.Binding
	mail    mail
	static  *Config
}

func (p *page) clear() {
	clear(p.entries)
	p.changes, p.entries, p.ended, p.static = p.changes[:0], p.entries[:0], p.ended[:0], nil
}

func (p *page) add(e entry) {
	p.changes = append(append(p.changes, e.changes[:e.n]...), e.many...)
	p.entries = append(p.entries, e)
	if e.static != nil {
		p.static = e.static
	}
}

func (p *page) fill(waiting <-chan entry) {
	for len(p.changes) < maxTogether {
		select {
		case e := <-waiting:
			p.add(e)
		default:
			return
		}
	}
}

// write does it, and lets the ACKs go.
func (l *ledger) write(p *page) {
	if p.static != nil {
		p.changes = append(p.changes, p.static.static(l.table.All())...)
	}
	if len(p.changes) == 0 && len(p.entries) == 0 && len(l.left) == 0 {
		return
	}
	err := l.store.Commit(p.changes, l.left...)
	if err != nil {
		if l.quiet.allow() {
			l.log.Error("bindings could not be written: the ACKs that they belong to are not relayed", "bindings", len(p.changes), "error", err)
		}
	} else {
		if p.static != nil {
			l.owed = nil
		}
		l.table.Apply(p.changes, func(b binding.Binding) { p.ended = append(p.ended, b) })
		l.left = l.sets.Change(p.ended, p.changes)
	}
	for i := range p.entries {
		e := &p.entries[i]
		switch {
		case e.done != nil:
			e.done <- err
		case e.parcel.frame == nil:
		case err != nil:
			e.parcel.port.reasons[NotStored].Add(1)
		default:
			p.mail.add(e.parcel)
		}
	}
	p.mail.send()
}
