package fence

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"github.com/postern-fw/postern/cluster"
)

// service answers UDP datagrams at every address of every node, as long as the test runs.
func (s *Site) service(t testing.TB) {
	for _, n := range s.Nodes {
		var c *net.UDPConn
		must(t, n.NS.Do(func() (err error) {
			c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7})
			return err
		}))
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 64)
			for {
				k, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort(b[:k], from)
			}
		}()
	}
}

// customer uses the service at an address, and knows when it had an answer.
type customer struct {
	mu      sync.Mutex
	answers []int64 // when what was answered had been sent, in order
}

// customer sends a datagram every 20 ms until the test ends.
func (s *Site) customer(t testing.TB, a netip.Addr) *customer {
	var c *net.UDPConn
	must(t, s.Client.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", nil)
		return err
	}))
	u := &customer{}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 8)
		for {
			if _, _, err := c.ReadFromUDPAddrPort(b); err != nil {
				return
			}
			u.mu.Lock()
			u.answers = append(u.answers, int64(binary.BigEndian.Uint64(b)))
			u.mu.Unlock()
		}
	}()
	go func() {
		for b := make([]byte, 8); ; time.Sleep(20 * time.Millisecond) {
			binary.BigEndian.PutUint64(b, uint64(cluster.BootTime()))
			// Errors are outages, but that of a closed socket.
			if _, err := c.WriteToUDPAddrPort(b, netip.AddrPortFrom(a, 7)); err != nil && u.over(c) {
				return
			}
		}
	}()
	return u
}

func (u *customer) over(c *net.UDPConn) bool { return c.SetDeadline(time.Time{}) != nil }

// outage is the longest time without service that begins before until and ends after from.
func (u *customer) outage(from, until int64) (longest time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := 1; i < len(u.answers); i++ {
		if u.answers[i] >= from && u.answers[i-1] <= until {
			longest = max(longest, time.Duration(u.answers[i]-u.answers[i-1]))
		}
	}
	return longest
}

// ask asks the segment for addresses every 100 ms, so that the kernels of nodes that have them answer.
func (s *Site) ask(t testing.TB, addresses []netip.Addr) {
	var c *packet.Conn
	var mac net.HardwareAddr
	must(t, s.Client.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		mac = ifi.HardwareAddr
		c, err = packet.Listen(ifi, packet.Raw, 0, nil)
		return err
	}))
	stop := make(chan struct{})
	done := make(chan struct{})
	t.Cleanup(func() { close(stop); <-done; c.Close() })
	all := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	go func() {
		defer close(done)
		for {
			for _, a := range addresses {
				b := append(append([]byte(all), mac...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
				b = append(append(b, mac...), 10, 8, 0, 200, 0, 0, 0, 0, 0, 0)
				b = append(append(b, a.AsSlice()...), make([]byte, 18)...)
				_, _ = c.WriteTo(b, &packet.Addr{HardwareAddr: all})
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-stop:
				return
			}
		}
	}()
}

// metrics are those of a server of etcd.
func (s *Site) metrics(t testing.TB, member int) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, at string) (c net.Conn, err error) {
		err = s.Hub.Do(func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, at)
			return err
		})
		return c, err
	}}}
	r, err := client.Get(s.Endpoints()[member] + "/metrics")
	must(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	must(t, err)
	return string(b)
}
