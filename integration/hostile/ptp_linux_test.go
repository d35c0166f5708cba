package hostile

import (
	"net/netip"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// ptpDefault is the default profile over Ethernet, and gPTP that of IEEE 802.1AS. Clocks
// are left alone, and everything goes eight times a second.
const (
	ptpDefault = `[global]
network_transport L2
time_stamping software
free_running 1
tx_timestamp_timeout 200
fault_reset_interval ASAP
logAnnounceInterval -3
logSyncInterval -3
logMinDelayReqInterval -3
announceReceiptTimeout 2
summary_interval -4
`
	gPTP = ptpDefault + `
transportSpecific 0x1
ptp_dst_mac 01:80:C2:00:00:0E
p2p_dst_mac 01:80:C2:00:00:0E
delay_mechanism P2P
gmCapable 1
neighborPropDelayThresh 1000000000
assume_two_step 1
path_trace_enabled 1
follow_up_info 1
logMinPdelayReqInterval -2
syncReceiptTimeout 40
min_neighbor_prop_delay -20000000
`
)

// ptp4l runs at an end.
func ptp4l(t testing.TB, p *lab.Pair, end int, config string, args ...string) *labtest.Program {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{"-f", labtest.Write(t, dir, "ptp4l.conf", 0o600, config), "-i", p.Ifi[end].Name, "-m", "-q",
		"--uds_address", dir + "/ptp4l"}, args...)
	return labtest.Start(t, p, end, nil, labtest.Tool(t, "ptp4l", "linuxptp"), args...)
}

// TestPTP: a master and a slave find each other and exchange time, whichever of them is
// guarded by a policy that lets nothing else pass.
func TestPTP(t *testing.T) {
	t.Parallel()
	for _, profile := range []struct{ name, config string }{{"default profile", ptpDefault}, {"gPTP", gPTP}} {
		for slave, role := range []string{"slave", "master"} {
			t.Run(profile.name+", the guarded end is "+role, func(t *testing.T) {
				t.Parallel()
				p := labtest.NewPair(t, "", "")
				g := guard(t, p, labtest.Near, testdata(t, "ptp.yaml"))
				master := ptp4l(t, p, 1-slave, profile.config)
				follower := ptp4l(t, p, slave, profile.config, "-s")
				master.Says(t, "LISTENING to MASTER")
				follower.Says(t, "LISTENING to UNCALIBRATED on RS_SLAVE")
				follower.Says(t, "master offset") // so every kind of message came through
				if g.decided(t, "ptp") == 0 {
					t.Error("the guard saw no PTP")
				}
			})
		}
	}
}

// TestPTPAlone: beside PTP, nothing goes out or comes in.
func TestPTPAlone(t *testing.T) {
	t.Parallel()
	for _, guards := range []bool{false, true} {
		p := labtest.NewPair(t, "192.0.2.5/24", "192.0.2.1/24")
		if guards {
			guard(t, p, labtest.Near, testdata(t, "ptp.yaml"))
		}
		arping := func(end int, target string) int {
			tool := labtest.Tool(t, "arping", "iputils-arping")
			return labtest.Start(t, p, end, nil, tool, "-c", "1", "-w", "1", "-I", p.Ifi[end].Name, target).Ends(t)
		}
		// By its own request the near end would teach the far end's kernel who it is, and
		// the far end, by its own, the near end's.
		if code := arping(labtest.Near, "192.0.2.1"); guards != (code == 1) {
			t.Errorf("guarded: %t, arping to the far end: exit %d", guards, code)
		}
		if mac := labtest.Cached(t, p, labtest.Far, netip.MustParseAddr("192.0.2.5")); guards != (mac == nil) {
			t.Errorf("guarded: %t, the far end knows %v", guards, mac)
		}
		if code := arping(labtest.Far, "192.0.2.5"); guards != (code == 1) {
			t.Errorf("guarded: %t, arping from the far end: exit %d", guards, code)
		}
		if mac := labtest.Cached(t, p, labtest.Near, netip.MustParseAddr("192.0.2.1")); guards != (mac == nil) {
			t.Errorf("guarded: %t, the near end knows %v", guards, mac)
		}
	}
}

// TestRogueGrandmaster: a slave's host gives time to nobody.
func TestRogueGrandmaster(t *testing.T) {
	t.Parallel()
	run := func(config string, args ...string) func(testing.TB, *lab.Pair) *labtest.Program {
		return func(t testing.TB, p *lab.Pair) *labtest.Program {
			t.Helper()
			return ptp4l(t, p, labtest.Near, config, args...)
		}
	}
	for _, u := range []use{
		{
			name: "announces itself", run: run(ptpDefault, "--priority1", "1"),
			forged: []forgery{
				{"eth.type == 0x88f7 && ptp.v2.messagetype == 0xb", "no-grandmaster"},
				{"eth.type == 0x88f7 && ptp.v2.messagetype == 0", "no-grandmaster"},
			},
		},
		{
			name: "announces itself over UDP", run: run(ptpDefault, "--network_transport", "UDPv4"),
			forged: []forgery{{"udp.dstport == 320 && ptp.v2.messagetype == 0xb", "no-grandmaster"}},
		},
		{
			name: "asks in another domain over UDP", run: run(ptpDefault, "--network_transport", "UDPv4", "--domainNumber", "7", "--delay_mechanism", "P2P", "-s"),
			forged: []forgery{{"udp.dstport == 319 && ptp.v2.domainnumber == 7", "no-other-ptp"}},
		},
		{
			name: "asks in another domain", run: run(ptpDefault, "--domainNumber", "7", "--delay_mechanism", "P2P", "-s"),
			forged: []forgery{{"eth.type == 0x88f7 && ptp.v2.domainnumber == 7", "no-other-ptp"}},
		},
	} {
		u.policy, u.endless = testdata(t, "ptp-slave.yaml"), true
		t.Run(u.name, u.try)
	}
}
