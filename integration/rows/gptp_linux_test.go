package rows

import (
	"net"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// ptp4l starts it at end i of a pair with what 802.1AS asks for and an interval or two a second
// shorter. The clock of the machine is left alone.
func ptp4l(t testing.TB, p *lab.Pair, i int, more ...string) *labtest.Program {
	t.Helper()
	dir := t.TempDir()
	config := labtest.Write(t, dir, "gPTP.cfg", 0o600, `[global]
transportSpecific 1
ptp_dst_mac 01:80:C2:00:00:0E
network_transport L2
delay_mechanism P2P
follow_up_info 1
path_trace_enabled 1
assume_two_step 1
# Nobody's clock is touched, and the delay is that of a busy machine.
free_running 1
neighborPropDelayThresh 1000000000
tx_timestamp_timeout 1000
logAnnounceInterval -2
logSyncInterval -3
logMinPdelayReqInterval -3
summary_interval -3
uds_address `+dir+`/ptp4l
`)
	args := append([]string{"-f", config, "-S", "-m", "-i", p.Ifi[i].Name}, more...)
	return labtest.Start(t, p, i, nil, labtest.Tool(t, "ptp4l", "linuxptp"), args...)
}

func TestGPTP(t *testing.T) {
	w := newWorld(t)
	p := w.join("eth0", "eth0")
	must(t, p.SetHardwareAddr(0, net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	must(t, p.SetHardwareAddr(1, net.HardwareAddr{2, 0, 0, 0, 0, 2}))
	w.guard(example(t, "gptp.yaml"))
	master := ptp4l(t, p, 1)
	slave := ptp4l(t, p, 0, "-s")
	master.Says(t, "grand master role")
	slave.Says(t, "master offset")
	t.Log(w.matched())
	t.Log(master.Output())
	t.Log(slave.Output())
}
