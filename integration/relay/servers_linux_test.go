package relay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// server is a DHCP server at the far end of up, that serves relayed segments 1 to n: it gives
// out 10.i.0.100 to 10.i.255.99, for a lease of some seconds. Clients renew one of less than a
// minute after renewAfter seconds, and rebind it after rebindAfter.
type server struct {
	name  string
	start func(t testing.TB, up *lab.Pair, segments, lease int) *labtest.Program
	ready string
}

const (
	renewAfter  = 2
	rebindAfter = 4
)

var servers = []server{
	{"ISC dhcpd", startDHCPD, "Server starting service."},
	{"Kea", startKea, "DHCP4_STARTED"},
	{"dnsmasq", startDnsmasq, "sockets bound exclusively to interface far"},
}

func (v *server) serve(s *site, lease int) *labtest.Program {
	s.t.Helper()
	g := v.start(s.t, s.up, max(len(s.segments), 1), lease)
	g.Says(s.t, v.ready)
	return g
}

func startDHCPD(t testing.TB, p *lab.Pair, segments, lease int) *labtest.Program {
	t.Helper()
	path, dir := labtest.Tool(t, "dhcpd", "isc-dhcp-server"), t.TempDir()
	var b strings.Builder
	fmt.Fprintf(&b, "authoritative; ping-check false; dhcp-cache-threshold 0; default-lease-time %d; min-lease-time %d; max-lease-time %d;\n", lease, lease, lease)
	if lease < 60 {
		fmt.Fprintf(&b, "option dhcp-renewal-time %d; option dhcp-rebinding-time %d;\n", renewAfter, rebindAfter)
	}
	b.WriteString("subnet 192.0.2.0 netmask 255.255.255.0 { }\n")
	for i := 1; i <= segments; i++ {
		fmt.Fprintf(&b, "subnet 10.%d.0.0 netmask 255.255.0.0 { range 10.%d.0.100 10.%d.255.99; option routers 10.%d.0.1; }\n", i, i, i, i)
	}
	config := labtest.Write(t, dir, "dhcpd.conf", 0o600, b.String())
	leases := labtest.Write(t, dir, "dhcpd.leases", 0o600, "")
	return labtest.Start(t, p, serverEnd, nil, path, "-4", "-f", "-d", "--no-pid", "-cf", config, "-lf", leases, "far")
}

func startDnsmasq(t testing.TB, p *lab.Pair, segments, lease int) *labtest.Program {
	t.Helper()
	path, dir := labtest.Tool(t, "dnsmasq", "dnsmasq-base"), t.TempDir()
	args := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp",
		"--user=root", "--pid-file=", "--port=0", "--no-ping", "--dhcp-authoritative", "--dhcp-lease-max=100000",
		"--interface=far", "--except-interface=lo", "--bind-interfaces", "--dhcp-leasefile=" + dir + "/leases"}
	if lease < 60 {
		args = append(args, fmt.Sprintf("--dhcp-option=option:T1,%d", renewAfter), fmt.Sprintf("--dhcp-option=option:T2,%d", rebindAfter))
	}
	for i := 1; i <= segments; i++ {
		args = append(args, fmt.Sprintf("--dhcp-range=10.%d.0.100,10.%d.255.99,255.255.0.0,%d", i, i, max(lease, 120)))
	}
	return labtest.Start(t, p, serverEnd, nil, path, args...)
}

func startKea(t testing.TB, p *lab.Pair, segments, lease int) *labtest.Program {
	t.Helper()
	path, dir := labtest.Tool(t, "kea-dhcp4", "kea-dhcp4-server"), t.TempDir()
	var subnets []string
	for i := 1; i <= segments; i++ {
		subnets = append(subnets, fmt.Sprintf(`{"id": %d, "subnet": "10.%d.0.0/16", "pools": [{"pool": "10.%d.0.100 - 10.%d.255.99"}],
			"option-data": [{"name": "routers", "data": "10.%d.0.1"}]}`, i, i, i, i, i))
	}
	timers := ""
	if lease < 60 {
		timers = fmt.Sprintf(`"renew-timer": %d, "rebind-timer": %d,`, renewAfter, rebindAfter)
	}
	config := labtest.Write(t, dir, "kea.json", 0o600, fmt.Sprintf(`{"Dhcp4": {
  "interfaces-config": {"interfaces": ["far"], "dhcp-socket-type": "udp"},
  "lease-database": {"type": "memfile", "persist": false},
  "authoritative": true, "valid-lifetime": %d, %s "subnet4": [%s],
  "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout", "flush": true}]},
    {"name": "kea-dhcp4.leases", "severity": "WARN"}]
}}`, lease, timers, strings.Join(subnets, ",")))
	env := []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}
	return labtest.Start(t, p, serverEnd, env, path, "-c", config)
}
