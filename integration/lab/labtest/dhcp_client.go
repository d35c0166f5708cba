//go:build linux

package labtest

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
)

// DHCPClient is a DHCP client as people run it. Each says "configured" and its
// address when it has a lease.
type DHCPClient struct {
	Name string
	// Start runs it at end i until it has a lease, or gives up after some seconds. It
	// takes id for its client identifier, if that is not nil.
	Start func(t testing.TB, p *lab.Pair, i, seconds int, id net.HardwareAddr) *Program
	// GaveUp is its exit code without a lease.
	GaveUp int
}

// DHCPClients are those that Debian has.
var DHCPClients = []DHCPClient{
	{"udhcpc", startUdhcpc, 1},
	{"ISC dhclient", startDhclient, 2},
	{"dhcpcd", startDhcpcd, 1},
}

// startUdhcpc sends a DISCOVER a second.
func startUdhcpc(t testing.TB, p *lab.Pair, i, seconds int, id net.HardwareAddr) *Program {
	path := Tool(t, "udhcpc", "udhcpc")
	script := Write(t, t.TempDir(), "script", 0o700, `#!/bin/sh -e
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
echo "configured $ip"
`)
	args := []string{"-f", "-n", "-q", "-i", p.Ifi[i].Name, "-s", script, "-T", "1", "-t", strconv.Itoa(seconds)}
	if id != nil {
		args = append(args, "-x", "0x3d:01"+strings.ReplaceAll(id.String(), ":", ""))
	}
	return Start(t, p, i, nil, path, args...)
}

// startDhclient keeps it from the machine's configuration, leases and script,
// which would write /etc/resolv.conf.
func startDhclient(t testing.TB, p *lab.Pair, i, seconds int, id net.HardwareAddr) *Program {
	path := Tool(t, "dhclient", "isc-dhcp-client")
	dir := t.TempDir()
	script := Write(t, dir, "script", 0o700, `#!/bin/sh -e
[ "$reason" = BOUND ] || exit 0
ip address add "$new_ip_address/$new_subnet_mask" dev "$interface"
echo "configured $new_ip_address"
`)
	text := "initial-delay 0; initial-interval 1; backoff-cutoff 1; timeout " + strconv.Itoa(seconds) + ";\n"
	if id != nil {
		text += "send dhcp-client-identifier 1:" + id.String() + ";\n"
	}
	config := Write(t, dir, "dhclient.conf", 0o600, text)
	return Start(t, p, i, nil, path, "-4", "-d", "-1", "-v", "--no-pid", "-cf", config, "-lf", dir+"/leases", "-sf", script, p.Ifi[i].Name)
}

// startDhcpcd gives it a /run and a /var/lib/dhcpcd of its own, since no option does.
// It probes the address that it gets for some seconds (RFC 5227). When it has a lease, it
// goes into the background, where its script cannot be heard: for that the shell waits.
func startDhcpcd(t testing.TB, p *lab.Pair, i, seconds int, id net.HardwareAddr) *Program {
	path := Tool(t, "dhcpcd", "dhcpcd-base")
	dir := t.TempDir()
	script := Write(t, dir, "script", 0o700, `#!/bin/sh -e
[ "$reason" = BOUND ] || exit 0
echo "configured $new_ip_address" >'`+dir+`/new'
mv '`+dir+`/new' '`+dir+`/bound'
`)
	config := Write(t, dir, "dhcpcd.conf", 0o600, "nodelay\nipv4only\nnoipv4ll\nnogateway\nscript "+script+"\n")
	var clientID string // none: its own
	if id != nil {
		clientID = "01:" + id.String()
	}
	shell := `mount -t tmpfs none /run && mount -t tmpfs none /var/lib/dhcpcd || exit 100
bound=$1; shift; "$@" || exit; until [ -e "$bound" ]; do sleep .01; done; cat "$bound"`
	return Start(t, p, i, nil, Tool(t, "unshare", "util-linux"), "--mount", "sh", "-c", shell, "sh", dir+"/bound",
		path, "-4", "-1", "-w", "-d", "-f", config, "-I", clientID, "-t", strconv.Itoa(seconds), p.Ifi[i].Name)
}
