//go:build linux

package programs

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/postern-fw/postern/integration/lab"
)

// dhcpServer is a DHCP server as people run it. Each gives out 192.0.2.100 to
// 192.0.2.149 from the far end, which is 192.0.2.1.
type dhcpServer struct {
	name  string
	start func(t testing.TB, p *lab.Pair) *program
	// ready is what it says when it serves, released when it takes a lease back.
	ready, released string
	// heard is what it says of a DISCOVER.
	heard func(xid dhcpv4.TransactionID) string
}

var dhcpServers = []dhcpServer{
	{
		name:     "ISC dhcpd",
		start:    startDHCPD,
		ready:    "Server starting service.",
		released: "DHCPRELEASE of",
		heard: func(xid dhcpv4.TransactionID) string {
			return "xid " + hex(xid[0]) + hex(xid[1]) + hex(xid[2]) + hex(xid[3])
		},
	},
	{
		name:     "dnsmasq",
		start:    startDnsmasq,
		ready:    "sockets bound exclusively to interface far",
		released: "DHCPRELEASE(far)",
		heard: func(xid dhcpv4.TransactionID) string {
			n, _ := strconv.ParseUint(strings.TrimPrefix(xid.String(), "0x"), 16, 32)
			return fmt.Sprintf("%d DHCPDISCOVER(far)", n)
		},
	},
	{
		name:     "Kea",
		start:    startKea,
		ready:    "DHCP4_STARTED",
		released: "DHCP4_RELEASE ",
		heard:    func(xid dhcpv4.TransactionID) string { return "tid=" + xid.String() },
	},
}

// hex is a byte as dhcpd writes it, without a leading zero.
func hex(b byte) string { return strconv.FormatUint(uint64(b), 16) }

// startDHCPD runs it as root: it changes its user only if told to (-user). It
// wants a lease file that exists, and makes others beside it.
func startDHCPD(t testing.TB, p *lab.Pair) *program {
	path := tool(t, "dhcpd", "isc-dhcp-server")
	dir := t.TempDir()
	config := write(t, dir, "dhcpd.conf", 0o600, `
authoritative;
ping-check false;
log(info, concat("xid ", binary-to-ascii(16, 8, "", packet(4, 4))));
subnet 192.0.2.0 netmask 255.255.255.0 {
  range 192.0.2.100 192.0.2.149;
  default-lease-time 600;
}
`)
	leases := write(t, dir, "dhcpd.leases", 0o600, "")
	return start(t, p, far, nil, path, "-4", "-f", "-d", "--no-pid", "-cf", config, "-lf", leases, "far")
}

// startDnsmasq keeps it from the machine's configuration, from DNS, and from
// becoming nobody, who has no business in the temporary directory.
func startDnsmasq(t testing.TB, p *lab.Pair) *program {
	path := tool(t, "dnsmasq", "dnsmasq-base")
	dir := t.TempDir()
	return start(t, p, far, nil, path, "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp",
		"--user=root", "--pid-file=", "--port=0", "--no-ping", "--dhcp-authoritative",
		"--interface=far", "--except-interface=lo", "--bind-interfaces",
		"--dhcp-leasefile="+dir+"/leases", "--dhcp-range=192.0.2.100,192.0.2.149,10m")
}

// startKea keeps its locks and its PID file out of /run.
func startKea(t testing.TB, p *lab.Pair) *program {
	path := tool(t, "kea-dhcp4", "kea-dhcp4-server")
	dir := t.TempDir()
	config := write(t, dir, "kea.json", 0o600, `{"Dhcp4": {
  "interfaces-config": {"interfaces": ["far"], "dhcp-socket-type": "raw"},
  "lease-database": {"type": "memfile", "persist": false},
  "authoritative": true,
  "valid-lifetime": 600,
  "subnet4": [{"id": 1, "subnet": "192.0.2.0/24", "interface": "far", "pools": [{"pool": "192.0.2.100 - 192.0.2.149"}]}],
  "loggers": [{"name": "kea-dhcp4", "severity": "DEBUG", "debuglevel": 40, "output_options": [{"output": "stdout", "flush": true}]}]
}}`)
	env := []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}
	return start(t, p, far, env, path, "-c", config)
}
