package packaging

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// agentFiles are a machine's that holds 192.0.2.10, and cannot hold 192.0.2.11. eager.service announces both by
// itself as soon as a network may be configured, before the agent.
var agentFiles = map[string]string{
	"etc/postern/agent.yaml": `node: m
interface: near
etcd: {endpoints: ["http://127.0.0.1:2379"]}
announce: {count: 2, interval: 200ms, refresh: 300ms, probe-interval: 50ms}
checks: {never: {exec: ["false"]}}
addresses: [{address: 192.0.2.10}, {address: 192.0.2.11, check: never}]
`,
	"etc/systemd/system/eager.service": "[Unit]\nDefaultDependencies=no\nAfter=network-pre.target\nBefore=postern-agent.service\n[Service]\nType=oneshot\nExecStart=sh /etc/eager\n",
	"etc/eager":                        say + "say 10 early; say 11 early; cat /proc/uptime >/out/eager\n",
	"etc/hosts":                        "127.0.0.1 localhost\n",
	"etc/systemd/system/etcd.service":  "[Unit]\nBefore=postern-agent.service\n[Service]\nType=notify\nExecStart=etcd --data-dir /run/etcd --unsafe-no-fsync --log-level warn\n",
	// What wants the network on a real machine, eager.service and etcd.
	"etc/systemd/system/check.service.d/after.conf": "[Unit]\nAfter=eager.service etcd.service\n",
	"etc/systemd/system/check.target.d/wants.conf":  "[Unit]\nWants=eager.service etcd.service\n",
}

// say announces an address three times, as a program that knows no lease.
const say = steps + `say() { ip addr replace "192.0.2.$1/32" dev near; step "said-$1-$2" arping -A -c 2 -w 1 -I near -s "192.0.2.$1" "192.0.2.$1"; }
`

const agentScript = say + `
main() { systemctl show -P MainPID postern-agent; }
holds() { postern vips --json | grep -q '"address":"192.0.2.10","interface":"near","node":"m".*"open":true'; }
step held until_ holds
sleep 1
step vips postern vips --json
step times systemctl show -P ActiveEnterTimestampMonotonic postern-agent-fence network-pre.target postern-agent
step process cat "/proc/$(main)/status"
say 11 held

old=$(main)
kill -KILL "$old"
say 11 killed
step restarted until_ sh -c "[ \"\$(systemctl show -P MainPID postern-agent)\" != $old ] && systemctl is-active postern-agent"
step again until_ holds
sleep 4 # longer than the lease of the one that was killed
step after postern vips --json
say 11 again

step stop systemctl stop postern-agent
cat /proc/uptime >/out/stopped
say 10 stopped
say 11 stopped
step status postern status
step fence systemctl is-active postern-agent-fence
cat /proc/uptime >/out/before
step journal journalctl --no-pager -o cat -u postern-agent -u postern-agent-fence
step flush postern flush
say 10 flushed
say 11 flushed
`

// TestAgentService boots a machine with the agent's units: nothing is announced before the fence is up, nor by anybody but
// the agent as long as it is; one that is killed is started anew and goes on with its lease; one
// that is stopped leaves the fence.
func TestAgentService(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for a container")
	}
	nspawn := labtest.Tool(t, "systemd-nspawn", "systemd-container")
	labtest.Tool(t, "arping", "iputils-arping")
	hub, err := lab.NewNamespace()
	must(t, err)
	defer hub.Close()
	node, err := lab.NewNamespace()
	must(t, err)
	defer node.Close()
	must(t, hub.Bridge("segment", ""))
	port, err := hub.Plug("segment", "m", node, "near", "198.51.100.1/24")
	must(t, err)
	seen, err := hub.Observe(port)
	must(t, err)
	defer seen.Close()
	bpffs, unmount, err := lab.BPFFS()
	must(t, err)
	defer unmount()
	usr := build(t)
	etcd := exec.Command("go", "build", "-o", filepath.Join(usr, "bin", "etcd"), ".")
	etcd.Dir = "../integration/etcd"
	if out, err := etcd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	m := newMachine(t, agentScript, agentFiles, "postern-agent-fence.service", "postern-agent.service")
	m.boot(nspawn, bpffs, int(node.NS), usr)
	if t.Failed() {
		return
	}
	m.checkAgentUnits()
	m.checkAnnounced(seen.Seen(0))
	if t.Failed() {
		t.Log(m.steps())
	}
}

func (m *machine) checkAgentUnits() {
	m.step("held")
	var times []int64
	for _, f := range strings.Fields(m.step("times")) {
		at, _ := strconv.ParseInt(f, 10, 64)
		times = append(times, at)
	}
	if len(times) != 3 || times[0] == 0 || times[0] > times[1] || times[1] > times[2] {
		m.t.Errorf("the fence was up, the network began, and the agent was ready at %v", times)
	}
	// CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39.
	m.step("process", "NoNewPrivs:\t1", "CapEff:\t000000c000003000", "CapBnd:\t000000c000003000")
	var vips [2]cluster.Status
	for i, step := range []string{"vips", "after"} {
		// The exit code is that nobody holds 192.0.2.11.
		out, code := m.said(step)
		if err := json.Unmarshal([]byte(out), &vips[i]); err != nil || code != 1 || !vips[i].Addresses[0].Open {
			m.t.Fatalf("%s: %d %v %s", step, code, err, out)
		}
	}
	m.step("restarted")
	m.step("again")
	if before, after := vips[0].Addresses[0].Since, vips[1].Addresses[0].Since; !before.Equal(after) {
		m.t.Errorf("it is held since %v, and since %v after the agent was killed: it did not go on with its lease", before, after)
	}
	m.step("stop")
	m.step("status", `near +egress +all +\w+ +guarded`, "postern-agent")
	m.step("fence", "active")
	m.step("flush")
	for line := range strings.Lines(m.step("journal", "holding addresses")) {
		// A kernel may refuse programs at LSM hooks to everybody.
		if strings.Contains(strings.ToLower(line), "permitted") || strings.Contains(strings.ToLower(line), "denied") {
			m.t.Errorf("the sandbox is too tight: %s", line)
		}
	}
}

// uptime is when a step of the script was, by CLOCK_BOOTTIME, which its clock is as well.
func (m *machine) uptime(step string) time.Duration {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.out, step))
	must(m.t, err)
	first, _, _ := strings.Cut(string(b), " ")
	d, err := time.ParseDuration(first + "s")
	must(m.t, err)
	return d
}

// checkAnnounced looks at what crossed the wire: 192.0.2.10 from the agent's start to its end, and both as soon as nothing is in
// force any more.
func (m *machine) checkAnnounced(frames []lab.ARP) {
	eager, stopped, before := m.uptime("eager"), m.uptime("stopped"), m.uptime("before")
	held, freed := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	count := map[netip.Addr]int{} // when nothing was in force
	owned := 0
	for _, f := range frames {
		at := time.Duration(f.At)
		switch {
		case f.Sender != held && f.Sender != freed:
		case at > before:
			count[f.Sender]++
		case f.Sender == freed || at < eager || at > stopped+10*time.Millisecond: // uptime's resolution
			m.t.Errorf("%v was announced at %v; eager.service ended at %v, the agent at %v", f.Sender, at, eager, stopped)
		default:
			owned++
		}
	}
	if owned == 0 || count[held] == 0 || count[freed] == 0 {
		m.t.Errorf("%d frames while the agent held %v, then %v without a fence: this proves little", owned, held, count)
	}
}
