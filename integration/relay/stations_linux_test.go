package relay

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// station is a DHCP client that keeps its lease, as hosts run it.
type station struct {
	name string
	// start runs it at the far end of a segment, with files in dir. If told to, it looks first
	// whether somebody uses the address that it is given.
	start func(t testing.TB, p *lab.Pair, dir string, probe bool) *labtest.Program
	// renew has it do so now, when it has said has; nil is one that does so when the server wants it.
	renew os.Signal
	has   string
	// release has it give its address back.
	release func(t testing.TB, p *lab.Pair, dir string, g *labtest.Program)
}

var stations = []station{
	{"udhcpc", stayUdhcpc, unix.SIGUSR1, "obtained", bySignal(unix.SIGUSR2)},
	{"ISC dhclient", stayDhclient, nil, "", releaseDhclient},
	{"dhcpcd", stayDhcpcd, nil, "", bySignal(unix.SIGALRM)},
}

func bySignal(sig os.Signal) func(testing.TB, *lab.Pair, string, *labtest.Program) {
	return func(t testing.TB, _ *lab.Pair, _ string, g *labtest.Program) { g.Signal(t, sig) }
}

func stayUdhcpc(t testing.TB, p *lab.Pair, dir string, probe bool) *labtest.Program {
	script := labtest.Write(t, dir, "udhcpc.script", 0o700, `#!/bin/sh -e
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
ip route replace default via "$router"
`)
	args := []string{"-f", "-i", p.Ifi[clientEnd].Name, "-s", script, "-T", "1", "-t", "20"}
	if probe {
		args = append(args, "-a500")
	}
	return labtest.Start(t, p, clientEnd, nil, labtest.Tool(t, "udhcpc", "udhcpc"), args...)
}

func stayDhclient(t testing.TB, p *lab.Pair, dir string, probe bool) *labtest.Program {
	look := ""
	if probe {
		// As its own script does with arping; that it fails is the conflict.
		look = labtest.Tool(t, "arping", "iputils-arping") + ` -q -D -c 1 -w 1 -I "$interface" "$new_ip_address" || exit 1`
	}
	labtest.Write(t, dir, "dhclient.script", 0o700, `#!/bin/sh -e
case "$reason" in BOUND|RENEW|REBIND) ;; *) exit 0 ;; esac
`+look+`
ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface"
ip route replace default via "$new_routers"
`)
	labtest.Write(t, dir, "dhclient.conf", 0o600, "initial-delay 0; initial-interval 1; backoff-cutoff 1; request subnet-mask, routers, dhcp-renewal-time, dhcp-rebinding-time;\n")
	return dhclient(t, p, dir, "-d")
}

func dhclient(t testing.TB, p *lab.Pair, dir string, how ...string) *labtest.Program {
	args := append([]string{"-4", "-v", "--no-pid", "-cf", dir + "/dhclient.conf", "-lf", dir + "/dhclient.leases", "-sf", dir + "/dhclient.script"}, how...)
	return labtest.Start(t, p, clientEnd, nil, labtest.Tool(t, "dhclient", "isc-dhcp-client"), append(args, p.Ifi[clientEnd].Name)...)
}

func releaseDhclient(t testing.TB, p *lab.Pair, dir string, g *labtest.Program) {
	g.Kill()
	dhclient(t, p, dir, "-r").Ends(t)
}

func stayDhcpcd(t testing.TB, p *lab.Pair, dir string, probe bool) *labtest.Program {
	config := labtest.Write(t, dir, "dhcpcd.conf", 0o600, "nodelay\nipv4only\nnoipv4ll\noption routers, dhcp_renewal_time, dhcp_rebinding_time\nscript /bin/true\n")
	args := []string{"--mount", "sh", "-c", `mount -t tmpfs none /run && mount -t tmpfs none /var/lib/dhcpcd && exec "$@"`, "sh",
		labtest.Tool(t, "dhcpcd", "dhcpcd-base"), "-4", "-B", "-d", "-f", config, "-I", ""}
	if !probe {
		args = append(args, "-A")
	}
	return labtest.Start(t, p, clientEnd, nil, labtest.Tool(t, "unshare", "util-linux"), append(args, p.Ifi[clientEnd].Name)...)
}
