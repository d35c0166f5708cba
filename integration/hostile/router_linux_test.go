package hostile

import (
	"fmt"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestVirtualRouter: masters announce the virtual addresses of their policy's set, and no others.
func TestVirtualRouter(t *testing.T) {
	t.Parallel()
	const (
		advertisement = "ip.proto == 112 && ip.dst == 224.0.0.18"
		announcement  = "arp.isgratuitous && arp.src.proto_ipv4 == "
	)
	for _, u := range []use{
		{
			name: "keepalived takes an address of the set", run: keepalived(20, "192.0.2.20", ""),
			honest: []string{advertisement, announcement + "192.0.2.20"},
		},
		{
			name: "keepalived with a virtual hardware address", run: keepalived(20, "192.0.2.20", "use_vmac\nvmac_xmit_base"),
			honest: []string{advertisement, announcement + "192.0.2.20 && eth.src == 00:00:5e:00:01:14"},
		},
		{
			name: "keepalived takes another's address", run: keepalived(20, "192.0.2.77", ""),
			forged: []forgery{{announcement + "192.0.2.77", "no-foreign-arp"}},
			honest: []string{advertisement},
		},
		{
			name: "keepalived with another's virtual hardware address", run: keepalived(99, "192.0.2.20", "use_vmac"),
			forged: []forgery{{announcement + "192.0.2.20 && eth.src == 00:00:5e:00:01:63", "own-hardware-address"}},
		},
		{
			name: "ucarp takes an address of the set", run: ucarp(20, "192.0.2.20"),
			honest: []string{advertisement + " && eth.src == 00:00:5e:00:00:14", announcement + "192.0.2.20"},
		},
		{
			name: "ucarp takes another's address", run: ucarp(20, "192.0.2.77"),
			forged: []forgery{{announcement + "192.0.2.77", "no-foreign-arp"}},
			honest: []string{advertisement},
		},
		{
			name: "ucarp is another's virtual router", run: ucarp(99, "192.0.2.20"),
			forged: []forgery{{advertisement + " && eth.src == 00:00:5e:00:00:63", "own-hardware-address"}},
			honest: []string{announcement + "192.0.2.20"},
		},
	} {
		u.policy, u.endless = testdata(t, "virtual-router.yaml"), true
		t.Run(u.name, u.try)
	}
}

// keepalived becomes master of a virtual router at once, as its priority is that of an
// address's owner.
func keepalived(router int, vip, more string) func(testing.TB, *lab.Pair) *labtest.Program {
	return func(t testing.TB, p *lab.Pair) *labtest.Program {
		t.Helper()
		dir := t.TempDir()
		config := labtest.Write(t, dir, "keepalived.conf", 0o600, fmt.Sprintf(`
vrrp_instance node {
  interface near
  virtual_router_id %d
  priority 255
  state MASTER
  advert_int 1
  %s
  virtual_ipaddress {
    %s/24
  }
}
`, router, more, vip))
		return labtest.Start(t, p, labtest.Near, nil, labtest.Tool(t, "keepalived", "keepalived"),
			"--dont-fork", "--log-console", "--no-syslog", "--log-detail", "--vrrp", "--use-file="+config, "--pid="+dir+"/pid", "--vrrp_pid="+dir+"/vrrp.pid")
	}
}

// ucarp becomes master when it has heard no other for a second.
func ucarp(router int, vip string) func(testing.TB, *lab.Pair) *labtest.Program {
	return func(t testing.TB, p *lab.Pair) *labtest.Program {
		t.Helper()
		dir := t.TempDir()
		up := labtest.Write(t, dir, "up", 0o700, "#!/bin/sh -e\nexec ip address add \"$2/24\" dev \"$1\"\n")
		down := labtest.Write(t, dir, "down", 0o700, "#!/bin/sh\n")
		return labtest.Start(t, p, labtest.Near, nil, labtest.Tool(t, "ucarp", "ucarp"), "--interface=near", "--srcip=192.0.2.5",
			fmt.Sprintf("--vhid=%d", router), "--pass=secret", "--addr="+vip, "--upscript="+up, "--downscript="+down, "--advbase=1", "--deadratio=1")
	}
}
