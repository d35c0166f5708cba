package lease

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-fw/postern/relay/binding"
)

// iscTime is how dhcpd writes an instant, behind the day of the week; it is UTC.
const iscTime = "2006/01/02 15:04:05"

// readISC reads dhcpd.leases(5): declarations, of which those of leases count.
func readISC(r *reader) error {
	for {
		line, ok := r.next()
		if !ok {
			return nil
		}
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "lease" || f[2] != "{" {
			continue // a comment, server-duid, a failover state
		}
		var b binding.Binding
		if err := b.IP.UnmarshalText([]byte(f[1])); err != nil {
			return err
		}
		if err := r.iscLease(&b); err != nil {
			return err
		}
	}
}

// iscLease reads the statements up to the brace.
func (r *reader) iscLease(b *binding.Binding) error {
	active, expiry := false, int64(0)
	for {
		line, ok := r.next()
		if !ok {
			return fmt.Errorf("the lease of %s has no end", b.IP)
		}
		text := strings.TrimSpace(line)
		if text == "}" {
			r.hold(*b, expiry, active && b.MAC != binding.MAC{})
			return nil
		}
		f := strings.Fields(strings.TrimSuffix(text, ";"))
		var err error
		switch {
		case len(f) == 3 && f[0] == "hardware" && f[1] == "ethernet":
			err = b.MAC.UnmarshalText([]byte(f[2]))
		case len(f) == 3 && f[0] == "binding" && f[1] == "state":
			active = f[2] == "active"
		case len(f) >= 2 && f[0] == "ends":
			expiry, err = iscEnd(f[1:])
		case len(f) >= 2 && f[0] == "uid":
			b.ClientID, err = iscString(strings.TrimSpace(strings.TrimPrefix(strings.TrimSuffix(text, ";"), "uid")))
		}
		if err != nil {
			return err
		}
	}
}

func iscEnd(f []string) (int64, error) {
	switch {
	case f[0] == "never":
		return 0, nil
	case f[0] == "epoch" && len(f) >= 2:
		n, err := strconv.ParseInt(strings.TrimSuffix(f[1], ";"), 10, 64)
		return n * int64(time.Second), err
	case len(f) == 3:
		at, err := time.ParseInLocation(iscTime, f[1]+" "+f[2], time.UTC)
		return at.UnixNano(), err
	}
	return 0, fmt.Errorf("%q is no instant", strings.Join(f, " "))
}

// iscString reads a client identifier: a string with octal escapes, or bytes with colons.
func iscString(s string) (string, error) {
	if !strings.HasPrefix(s, `"`) {
		return colons(s)
	}
	if len(s) < 2 || !strings.HasSuffix(s, `"`) {
		return "", fmt.Errorf("%s has no end", s)
	}
	var out []byte
	for s = s[1 : len(s)-1]; len(s) > 0; {
		if s[0] != '\\' || len(s) < 2 {
			out, s = append(out, s[0]), s[1:]
			continue
		}
		n, err := strconv.ParseUint(s[1:min(4, len(s))], 8, 8)
		if err != nil || len(s) < 4 {
			out, s = append(out, s[1]), s[2:] // \" and \\
			continue
		}
		out, s = append(out, byte(n)), s[4:]
	}
	return string(out), nil
}

func writeISC(w *bufio.Writer, list []binding.Binding) error {
	for i := range list {
		b := &list[i]
		ends := "never"
		if !b.Never() {
			at := time.Unix(0, b.Expiry).UTC()
			ends = fmt.Sprintf("%d %s", at.Weekday(), at.Format(iscTime))
		}
		fmt.Fprintf(w, "lease %s {\n  ends %s;\n  binding state active;\n  hardware ethernet %s;\n", b.IP, ends, b.MAC)
		if b.ClientID != "" {
			fmt.Fprintf(w, "  uid %s;\n", withColons(b.ClientID))
		}
		if _, err := w.WriteString("}\n"); err != nil {
			return err
		}
	}
	return nil
}
