// Package lease reads and writes the lease files of DHCP servers: ISC dhcpd's, Kea's memfile and
// dnsmasq's. Those know no interfaces, so that what is read is at a place that the caller names.
// It knows formats, and nothing of what becomes of the bindings.
//
// Files are other people's: what is too long or makes no sense ends reading, with the number of its
// line. Where an address stands more than once, the last entry holds, as for the servers.
package lease

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/postern-fw/postern/relay/binding"
)

// Format is a kind of lease file.
type Format struct {
	Name  string
	read  func(*reader) error
	write func(*bufio.Writer, []binding.Binding) error
}

// Formats are those that are known.
var Formats = []Format{
	{"isc", readISC, writeISC},
	{"kea", readKea, writeKea},
	{"dnsmasq", readDnsmasq, writeDnsmasq},
}

// Named is a format by its name.
func Named(name string) (Format, error) {
	i := slices.IndexFunc(Formats, func(f Format) bool { return f.Name == name })
	if i < 0 {
		return Format{}, fmt.Errorf("%w %q: there are isc, kea and dnsmasq", ErrFormat, name)
	}
	return Formats[i], nil
}

var (
	// ErrFormat is matched where a format is not known.
	ErrFormat = errors.New("unknown format of leases")
	// ErrSyntax is matched by what does not follow the format.
	ErrSyntax = errors.New("not a lease file of this format")
)

// maxLine bounds a line; servers write no longer ones.
const maxLine = 64 << 10

// Read reads the leases that are in force.
func (f Format) Read(r io.Reader, at binding.Place) ([]binding.Binding, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	in := &reader{lines: s, place: at, held: map[binding.IPv4]binding.Binding{}, now: time.Now().UnixNano()}
	err := f.read(in)
	if err == nil {
		err = s.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("line %d: %w: %w", in.line, ErrSyntax, err)
	}
	out := make([]binding.Binding, 0, len(in.held))
	for _, b := range in.held {
		out = append(out, b)
	}
	slices.SortFunc(out, func(x, y binding.Binding) int { return int(int64(x.IP) - int64(y.IP)) })
	return out, nil
}

// Write writes bindings down.
func (f Format) Write(w io.Writer, list []binding.Binding) error {
	out := bufio.NewWriter(w)
	if err := f.write(out, list); err != nil {
		return err
	}
	return out.Flush()
}

type reader struct {
	lines *bufio.Scanner
	line  int
	place binding.Place
	held  map[binding.IPv4]binding.Binding
	now   int64
}

// next is the next line, false at the end.
func (r *reader) next() (string, bool) {
	if !r.lines.Scan() {
		return "", false
	}
	r.line++
	return r.lines.Text(), true
}

// hold takes an entry; those that are over free the address.
func (r *reader) hold(b binding.Binding, expiry int64, active bool) {
	b.Place = r.place
	b.ExpiresAt(expiry)
	if !active || expiry != 0 && expiry <= r.now {
		delete(r.held, b.IP)
		return
	}
	r.held[b.IP] = b
}

// colons reads bytes as xx:xx; "" and * are none.
func colons(s string) (string, error) {
	if s == "" || s == "*" {
		return "", nil
	}
	var b []byte
	for part := range strings.SplitSeq(s, ":") {
		if len(part) == 1 {
			part = "0" + part
		}
		v, err := hex.DecodeString(part)
		if err != nil || len(v) != 1 {
			return "", fmt.Errorf("%q is not bytes such as 01:02", s)
		}
		b = append(b, v...)
	}
	return string(b), nil
}

func withColons(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if i > 0 {
			out.WriteByte(':')
		}
		fmt.Fprintf(&out, "%02x", s[i])
	}
	return out.String()
}
