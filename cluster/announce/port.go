package announce

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/packet"
)

// port is an interface.
type port struct {
	Options
	name string
	wake chan struct{}

	mu      sync.Mutex
	socket  net.PacketConn
	mac     net.HardwareAddr
	due     queue
	speaks  map[netip.Addr]*job
	probing map[netip.Addr]chan net.HardwareAddr
	bucket  bucket
	told    time.Time // when an error was logged last
}

// job is an address that is announced.
type job struct {
	address  netip.Addr
	next     time.Time
	done     int // announcements
	over     bool
	defended time.Time
}

func newPort(o Options, name string) *port {
	return &port{Options: o, name: name, wake: make(chan struct{}, 1), speaks: map[netip.Addr]*job{}, probing: map[netip.Addr]chan net.HardwareAddr{},
		bucket: bucket{rate: float64(o.Rate), burst: float64(o.Burst), tokens: float64(o.Burst)}}
}

func (p *port) open() error {
	ifi, err := net.InterfaceByName(p.name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", p.name, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return fmt.Errorf("interface %s is no Ethernet: ARP announces nothing there", p.name)
	}
	c, err := p.Listen(ifi)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socket, p.mac = c, ifi.HardwareAddr
	return nil
}

func (p *port) conn() net.PacketConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.socket
}

func (p *port) announce(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.speaks[a]; old != nil {
		old.over = true
	}
	j := &job{address: a, next: time.Now()}
	p.speaks[a] = j
	heap.Push(&p.due, j)
	p.rouse()
}

func (p *port) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *port) silence(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j := p.speaks[a]; j != nil {
		j.over = true
		delete(p.speaks, a)
	}
}

// probe has what speaks for an address told.
func (p *port) probe(a netip.Addr) (answers <-chan net.HardwareAddr, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := make(chan net.HardwareAddr, 1)
	p.probing[a] = ch
	return ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.probing[a] == ch {
			delete(p.probing, a)
		}
	}
}

// next is the job that is due, or how long to wait for one. First announcements come before
// repetitions: whoever waits for the address waits for these.
func (p *port) next(now time.Time) (*job, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.due) > 0 && p.due[0].over {
		heap.Pop(&p.due)
	}
	if len(p.due) == 0 {
		return nil, time.Hour
	}
	if wait := p.due[0].next.Sub(now); wait > 0 {
		return nil, wait
	}
	if wait := p.bucket.take(now, 2); wait > 0 {
		return nil, wait
	}
	j := heap.Pop(&p.due).(*job)
	again := p.Refresh + rand.N(p.Refresh/8+1)
	if j.done++; j.done < p.Count {
		again = p.Interval
	}
	j.next = now.Add(again)
	heap.Push(&p.due, j)
	return j, 0
}

func (p *port) send(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		j, wait := p.next(time.Now())
		if j != nil {
			p.speak(j.address)
			if ctx.Err() != nil {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-ctx.Done():
			return
		}
	}
}

// speak announces in both forms: some neighbours learn from requests alone, some from replies.
func (p *port) speak(a netip.Addr) {
	err := p.write(arp.OperationRequest, a, a, make(net.HardwareAddr, 6))
	if err == nil {
		err = p.write(arp.OperationReply, a, a, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	p.failed("announcing "+a.String(), err)
}

func (p *port) write(op arp.Operation, sender, target netip.Addr, targetMAC net.HardwareAddr) error {
	p.mu.Lock()
	c, mac := p.socket, p.mac
	p.mu.Unlock()
	b, err := marshal(op, mac, sender, target, targetMAC)
	if err == nil {
		_, err = c.WriteTo(b, &packet.Addr{HardwareAddr: b[:6]})
	}
	return err
}

// failed tells of an error, not too often. A refusal is none: the lease was over.
func (p *port) failed(what string, err error) {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ENOBUFS) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.told) > 5*time.Second {
		p.told = now
		p.Log.Warn(what+": "+err.Error(), "interface", p.name)
	}
}

func (p *port) receive(ctx context.Context) {
	buf := make([]byte, 256)
	for {
		n, _, err := p.conn().ReadFrom(buf)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			p.heard(buf[:n])
			continue
		}
		// The interface was down, or it is another one now.
		p.failed("listening for ARP", err)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		old := p.conn()
		if err := p.open(); err != nil {
			p.failed("listening for ARP", err)
			continue
		}
		_ = old.Close()
		if ctx.Err() != nil {
			_ = p.conn().Close()
		}
	}
}

func (p *port) heard(b []byte) {
	packet, ok := parse(b)
	if !ok {
		return
	}
	p.mu.Lock()
	if bytes.Equal(packet.SenderHardwareAddr, p.mac) {
		p.mu.Unlock()
		return
	}
	// Who uses an address, and who wants to.
	asked := packet.SenderIP
	if asked.IsUnspecified() {
		asked = packet.TargetIP
	}
	if ch := p.probing[asked]; ch != nil {
		select {
		case ch <- bytes.Clone(packet.SenderHardwareAddr):
		default:
		}
	}
	j, defend := p.speaks[packet.SenderIP], false
	if now := time.Now(); j != nil && now.Sub(j.defended) >= p.Defend {
		j.defended, defend = now, true
	}
	p.mu.Unlock()
	if defend {
		p.Conflict(packet.SenderIP, bytes.Clone(packet.SenderHardwareAddr))
		p.speak(packet.SenderIP)
	}
}

// queue is a heap of jobs.
type queue []*job

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if (q[i].done == 0) != (q[j].done == 0) {
		return q[i].done == 0
	}
	return q[i].next.Before(q[j].next)
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*job)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return x
}

// bucket is a token bucket.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
}

// take takes n tokens, or says how long to wait for them.
func (b *bucket) take(now time.Time, n float64) time.Duration {
	b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.at).Seconds())
	b.at = now
	if need := min(n, b.burst) - b.tokens; need > 0 {
		return time.Duration(need / b.rate * float64(time.Second))
	}
	b.tokens -= n
	return 0
}
