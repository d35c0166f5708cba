package lease

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-fw/postern/relay/binding"
)

// keaColumns are those of Kea 2.2's memfile; other versions have more at the end, or fewer.
const keaColumns = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context"

// readKea reads Kea's memfile: CSV with a header, in which commas are escaped, not quoted.
func readKea(r *reader) error {
	header, ok := r.next()
	if !ok {
		return nil
	}
	columns := strings.Split(header, ",")
	at := func(name string) int { return slices.Index(columns, name) }
	for _, name := range []string{"address", "hwaddr", "expire"} {
		if at(name) < 0 {
			return fmt.Errorf("no column %s in %q", name, header)
		}
	}
	for {
		line, ok := r.next()
		if !ok {
			return nil
		}
		if line == "" {
			continue
		}
		f := strings.Split(line, ",")
		get := func(name string) string {
			if i := at(name); i >= 0 && i < len(f) {
				return f[i]
			}
			return ""
		}
		if err := r.keaLease(get); err != nil {
			return err
		}
	}
}

func (r *reader) keaLease(get func(string) string) error {
	var b binding.Binding
	if err := b.IP.UnmarshalText([]byte(get("address"))); err != nil {
		return err
	}
	active := get("state") == "0" || get("state") == ""
	if get("hwaddr") == "" { // declined, or without one
		active = false
	} else if err := b.MAC.UnmarshalText([]byte(get("hwaddr"))); err != nil {
		return err
	}
	id, err := colons(get("client_id"))
	if err != nil {
		return err
	}
	b.ClientID = id
	expire, err := strconv.ParseInt(get("expire"), 10, 64)
	if err != nil {
		return fmt.Errorf("expire %q: %w", get("expire"), err)
	}
	lifetime := get("valid_lifetime")
	if lifetime == "4294967295" {
		expire = 0
	} else if expire == 0 || lifetime == "0" {
		active = false // released
	}
	if expire < 0 || expire > 1<<33 {
		return fmt.Errorf("expire %d is no instant", expire)
	}
	r.hold(b, expire*int64(time.Second), active)
	return nil
}

func writeKea(w *bufio.Writer, list []binding.Binding) error {
	fmt.Fprintln(w, keaColumns)
	for i := range list {
		b := &list[i]
		// An endless lease ends when its lifetime is over, in 32 bits.
		lifetime, expire := int64(0xffffffff), time.Now().Unix()+0xffffffff
		if !b.Never() {
			expire = b.Expiry / int64(time.Second)
			lifetime = max(1, expire-time.Now().Unix())
		}
		if _, err := fmt.Fprintf(w, "%s,%s,%s,%d,%d,0,0,0,,0,\n", b.IP, b.MAC, withColons(b.ClientID), lifetime, expire); err != nil {
			return err
		}
	}
	return nil
}
