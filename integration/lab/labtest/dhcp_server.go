//go:build linux

package labtest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/postern-fw/postern/integration/lab"
)

// DHCPServer is a DHCP server as people run it.
type DHCPServer struct {
	Name string
	// Start runs it at end i, where it has 192.0.2.1, with a pool of 192.0.2.100 to .149.
	Start func(t testing.TB, p *lab.Pair, i int) *Program
	// Ready is what it says when it serves, Released when it takes a lease back.
	Ready, Released string
	// Heard is what it says of a DISCOVER.
	Heard func(xid dhcpv4.TransactionID) string
}

// DHCPServers are those that Debian has.
var DHCPServers = []DHCPServer{
	{
		Name:     "ISC dhcpd",
		Start:    startDHCPD,
		Ready:    "Server starting service.",
		Released: "DHCPRELEASE of",
		Heard: func(xid dhcpv4.TransactionID) string {
			return "xid " + hex(xid[0]) + hex(xid[1]) + hex(xid[2]) + hex(xid[3])
		},
	},
	{
		Name:     "dnsmasq",
		Start:    startDnsmasq,
		Ready:    "sockets bound exclusively to interface",
		Released: "DHCPRELEASE(",
		Heard: func(xid dhcpv4.TransactionID) string {
			n, _ := strconv.ParseUint(strings.TrimPrefix(xid.String(), "0x"), 16, 32)
			return fmt.Sprintf("%d DHCPDISCOVER(", n)
		},
	},
	{
		Name:     "Kea",
		Start:    startKea,
		Ready:    "DHCP4_STARTED",
		Released: "DHCP4_RELEASE ",
		Heard:    func(xid dhcpv4.TransactionID) string { return "tid=" + xid.String() },
	},
}

// hex is a byte as dhcpd writes it, without a leading zero.
func hex(b byte) string { return strconv.FormatUint(uint64(b), 16) }

// startDHCPD runs it as root: it changes its user only if told to (-user). It
// wants a lease file that exists, and makes others beside it.
func startDHCPD(t testing.TB, p *lab.Pair, i int) *Program {
	path := Tool(t, "dhcpd", "isc-dhcp-server")
	dir := t.TempDir()
	config := Write(t, dir, "dhcpd.conf", 0o600, `
authoritative;
ping-check false;
log(info, concat("xid ", binary-to-ascii(16, 8, "", packet(4, 4))));
subnet 192.0.2.0 netmask 255.255.255.0 {
  range 192.0.2.100 192.0.2.149;
  default-lease-time 600;
}
`)
	leases := Write(t, dir, "dhcpd.leases", 0o600, "")
	return Start(t, p, i, nil, path, "-4", "-f", "-d", "--no-pid", "-cf", config, "-lf", leases, p.Ifi[i].Name)
}

// startDnsmasq keeps it from the machine's configuration, from DNS, and from
// becoming nobody, who has no business in the temporary directory.
func startDnsmasq(t testing.TB, p *lab.Pair, i int) *Program {
	path := Tool(t, "dnsmasq", "dnsmasq-base")
	dir := t.TempDir()
	return Start(t, p, i, nil, path, "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp",
		"--user=root", "--pid-file=", "--port=0", "--no-ping", "--dhcp-authoritative",
		"--interface="+p.Ifi[i].Name, "--except-interface=lo", "--bind-interfaces",
		"--dhcp-leasefile="+dir+"/leases", "--dhcp-range=192.0.2.100,192.0.2.149,10m")
}

// startKea keeps its locks and its PID file out of /run.
func startKea(t testing.TB, p *lab.Pair, i int) *Program {
	path := Tool(t, "kea-dhcp4", "kea-dhcp4-server")
	dir := t.TempDir()
	config := Write(t, dir, "kea.json", 0o600, `{"Dhcp4": {
  "interfaces-config": {"interfaces": ["`+p.Ifi[i].Name+`"], "dhcp-socket-type": "raw"},
  "lease-database": {"type": "memfile", "persist": false},
  "authoritative": true,
  "valid-lifetime": 600,
  "subnet4": [{"id": 1, "subnet": "192.0.2.0/24", "interface": "`+p.Ifi[i].Name+`", "pools": [{"pool": "192.0.2.100 - 192.0.2.149"}]}],
  "loggers": [{"name": "kea-dhcp4", "severity": "DEBUG", "debuglevel": 40, "output_options": [{"output": "stdout", "flush": true}]}]
}}`)
	env := []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}
	return Start(t, p, i, env, path, "-c", config)
}
