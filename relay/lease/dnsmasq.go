package lease

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-fw/postern/relay/binding"
)

// readDnsmasq reads dnsmasq's lease file: expiry, hardware address, address, name and client
// identifier on each line, until the part of DHCPv6.
func readDnsmasq(r *reader) error {
	for {
		line, ok := r.next()
		f := strings.Fields(line)
		if !ok || len(f) > 0 && f[0] == "duid" {
			return nil
		}
		if len(f) == 0 {
			continue
		}
		if len(f) != 5 {
			return fmt.Errorf("%d words, not 5", len(f))
		}
		var b binding.Binding
		expiry, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil || expiry < 0 || expiry > 1<<33 {
			return fmt.Errorf("%q is no instant", f[0])
		}
		if err := b.MAC.UnmarshalText([]byte(f[1])); err != nil {
			return err
		}
		if err := b.IP.UnmarshalText([]byte(f[2])); err != nil {
			return err
		}
		if b.ClientID, err = colons(f[4]); err != nil {
			return err
		}
		r.hold(b, expiry*int64(time.Second), true)
	}
}

func writeDnsmasq(w *bufio.Writer, list []binding.Binding) error {
	for i := range list {
		b := &list[i]
		id := withColons(b.ClientID)
		if id == "" {
			id = "*"
		}
		if _, err := fmt.Fprintf(w, "%d %s %s * %s\n", b.Expiry/int64(time.Second), b.MAC, b.IP, id); err != nil {
			return err
		}
	}
	return nil
}
