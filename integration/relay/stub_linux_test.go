package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/proto/dhcp"
)

// stub is a DHCP server that costs next to nothing, where the agent is to be measured, or
// killed: it gives a client of segment i the address 10.i.x.y that ends as its hardware address
// does, at once, for an hour.
func stub(t testing.TB, up *lab.Pair) {
	t.Helper()
	var c *net.UDPConn
	labtest.In(t, up, serverEnd, func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 53), Port: 67})
		if err == nil {
			err = c.SetReadBuffer(4 << 20)
		}
		return err
	})
	ended := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			answer, giaddr := stubAnswer(b[:n])
			if answer != nil {
				_, _ = c.WriteToUDPAddrPort(answer, netip.AddrPortFrom(giaddr, 67)) // the client asks again
			}
		}
	}()
}

func stubAnswer(b []byte) ([]byte, netip.Addr) {
	var m dhcp.Message
	m.Decode(b)
	giaddr, _ := netip.AddrFromSlice(b[24:28])
	typ := map[uint8]byte{1: 2, 3: 5}[m.Type]
	if m.Malformed != dhcp.CauseNone || typ == 0 {
		return nil, giaddr
	}
	out := append([]byte{}, b[:240]...)
	out[0] = 2
	copy(out[16:20], b[24:26])
	copy(out[18:20], b[32:34])
	out = append(out, 53, 1, typ, 54, 4, 192, 0, 2, 53, 51, 4)
	out = binary.BigEndian.AppendUint32(out, 3600)
	out = append(out, 82, 0)
	at := len(out)
	out = m.Join(out, dhcp.OptRelayAgentInfo)
	out[at-1] = byte(len(out) - at)
	return append(out, 255), giaddr
}
