package rows

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// ptp4l starts it at end i of a pair as 802.1AS wants it, but for intervals that are shorter and a
// delay that may be a busy machine's. The machine's clock is left alone.
func ptp4l(t testing.TB, p *lab.Pair, i int, more string) *labtest.Program {
	t.Helper()
	dir := t.TempDir()
	config := labtest.Write(t, dir, "gPTP.cfg", 0o600, `[global]
transportSpecific 1
network_transport L2
ptp_dst_mac 01:80:C2:00:00:0E
delay_mechanism P2P
follow_up_info 1
path_trace_enabled 1
assume_two_step 1
neighborPropDelayThresh 1000000000
tx_timestamp_timeout 1000
logAnnounceInterval -2
logSyncInterval -3
logMinPdelayReqInterval -3
summary_interval -3
free_running 1
uds_address `+dir+`/ptp4l
`+more+"\n")
	return labtest.Start(t, p, i, nil, labtest.Tool(t, "ptp4l", "linuxptp"), "-f", config, "-S", "-m", "-i", p.Ifi[i].Name)
}

// newCable is what examples/gptp.yaml is for: eth0 of an end station, and its neighbour.
func newCable(t testing.TB) (*world, *lab.Pair) {
	t.Helper()
	w := newWorld(t)
	p := w.join("eth0", "eth0")
	for i := range p.Ifi {
		must(t, p.SetHardwareAddr(i, net.HardwareAddr{2, 0, 0, 0, 0, byte(1 + i)}))
	}
	return w, p
}

// TestGPTP: an end station takes its time from the network through a guard that lets nothing else
// pass, the kernel's own frames included.
func TestGPTP(t *testing.T) {
	t.Parallel()
	w, p := newCable(t)
	labtest.Address(t, p, 0, "198.51.100.1/24")
	labtest.Address(t, p, 1, "198.51.100.2/24")
	reach := func() error {
		return p.Do(0, func() error {
			c, err := net.DialTimeout("tcp4", "198.51.100.2:9", 500*time.Millisecond)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	if err := reach(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("without a guard, no one answers: %v", err)
	}
	w.guard(example(t, "gptp.yaml"))
	if err := reach(); err == nil || errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the neighbour can be reached by IP: %v", err)
	}
	master := ptp4l(t, p, 1, "")
	master.Says(t, "assuming the grand master role")
	slave := ptp4l(t, p, 0, "slaveOnly 1")
	slave.Says(t, "selected best master clock 020000.fffe.000002")
	slave.Says(t, "master offset")
	n := w.matched()
	t.Logf("passed: %d out, %d in; %d others refused", n["own-messages"], n["neighbours-messages"], n["no-other-protocol"])
	if n["own-messages"] == 0 || n["neighbours-messages"] == 0 || n["default"]+n["no-management"]+n["no-other-domain"] > 0 {
		t.Errorf("matched: %v", n)
	}
}

// TestRogueGrandmaster: an end station that would give everybody its time is not heard.
func TestRogueGrandmaster(t *testing.T) {
	t.Parallel()
	w, p := newCable(t)
	const found = "new foreign master 020000.fffe.000001"
	listener := ptp4l(t, p, 1, "slaveOnly 1")
	rogue := ptp4l(t, p, 0, "priority1 1")
	listener.Says(t, found)
	rogue.Kill()
	listener.Kill()

	w.guard(example(t, "gptp.yaml"))
	listener = ptp4l(t, p, 1, "slaveOnly 1")
	rogue = ptp4l(t, p, 0, "priority1 1\nfault_reset_interval ASAP\ntx_timestamp_timeout 10")
	rogue.Says(t, "assuming the grand master role")
	// It waits for the time at which its Sync was sent, does not get it, and begins anew.
	for deadline := time.Now().Add(labtest.Patience); w.matched()["default"] < 4; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not send what is refused: %v", w.matched())
		}
	}
	if listener.Said(found) {
		t.Error("it is heard")
	}
}
