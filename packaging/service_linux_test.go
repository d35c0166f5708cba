package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

const unit = "postern.service"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What systemd makes of the sandbox, from 0 to 10, must not get worse.
func TestSandbox(t *testing.T) {
	analyze := labtest.Tool(t, "systemd-analyze", "systemd")
	out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", "--threshold=25", unit).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Overall exposure level for "+unit)) {
		t.Errorf("%v\n%s", err, out)
	}
}

const policy = `policy: packaged
guard: [{interfaces: [near]}]
hook: gate
seal: /
sets: {vips: {type: ipv4, elements: [192.0.2.10]}}
rules: [{name: own, match: arp.src.proto_ipv4 in @vips, verdict: accept}]
`

// script is what the machine in the container does when it has booted.
const script = steps + `
announce() { step "announced-$1" arping -A -c 1 -w 1 -I near -s "192.0.2.$1" "192.0.2.$1"; }
main() { systemctl show -P MainPID postern; }


for last in 10 11 12; do ip addr add "192.0.2.$last/32" dev near; done # arping wants them
systemctl is-active postern || { step boot systemctl --no-pager status postern; step journal journalctl --no-pager -b; systemctl exit; exit; }
step entered systemctl show -P ActiveEnterTimestampMonotonic postern.service network-pre.target
step verify systemd-analyze verify postern.service
step properties systemctl show postern -p Type,ActiveState,WatchdogUSec,StatusText
step process cat "/proc/$(main)/status"
step status postern status
step doctor postern doctor
announce 10
announce 11
timeout 20 postern monitor -n 1 --json >/out/event 2>&1 &
step heard until_ sh -c '[ -s /out/event ] || { arping -q -A -c 1 -w 1 -I near -s 192.0.2.11 192.0.2.11; false; }'
wait

announce 12
sed -i s/192.0.2.10/192.0.2.12/ /etc/postern/policy.yaml
step reload systemctl reload postern
step reloaded until_ sh -c 'postern set list vips | grep -q 192.0.2.12'
announce 12
echo nonsense >/etc/postern/policy.yaml
step wrong systemctl reload postern
step refused until_ sh -c 'systemctl show -P StatusText postern | grep "was not put in force, the policy before stays as it is"'
step unharmed postern status
echo "$POLICY" | sed s/192.0.2.10/192.0.2.12/ >/etc/postern/policy.yaml

old=$(main)
kill -KILL "$old"
step restarted until_ sh -c "[ \"\$(systemctl show -P MainPID postern)\" != $old ] && systemctl is-active postern"
announce 11
step stop systemctl stop postern
step stopped postern status
announce 11
step journal journalctl --no-pager -o cat -u postern
step flush postern flush
announce 11
`

func TestService(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for a container")
	}
	nspawn := labtest.Tool(t, "systemd-nspawn", "systemd-container")
	labtest.Tool(t, "arping", "iputils-arping")
	pair, err := lab.New()
	must(t, err)
	defer pair.Close()
	bpffs, unmount, err := lab.BPFFS()
	must(t, err)
	defer unmount()
	far, err := pair.Receive(1)
	must(t, err)
	defer far.Close()
	m := newMachine(t, "POLICY='"+policy+"'\n"+script, map[string]string{"etc/postern/policy.yaml": policy}, unit)
	m.boot(nspawn, bpffs, int(pair.NS[0]), build(t))
	if t.Failed() {
		return
	}
	m.checkSandbox()
	m.checkSteps()
	arrived := announcements(t, far)
	// 11 was sent while the policy was in force, after run was killed, after the service
	// was stopped, and once when nothing was in force any more.
	for last, want := range map[byte]int{10: 1, 11: 1, 12: 1} {
		if arrived[last] != want {
			t.Errorf("%d announcements of 192.0.2.%d arrived, want %d", arrived[last], last, want)
		}
	}
}

func (m *machine) checkSandbox() {
	entered := strings.Fields(m.step("entered"))
	if len(entered) != 2 {
		m.t.Fatalf("entered: %v", entered)
	}
	service, _ := strconv.Atoi(entered[0])
	network, _ := strconv.Atoi(entered[1])
	if service == 0 || network == 0 || service > network {
		m.t.Errorf("in force at %d, the network began at %d", service, network)
	}
	for line := range strings.Lines(m.step("verify")) {
		// That is the type of newer versions, for which this one takes the one before.
		if !strings.Contains(line, "postern.service:") || !strings.Contains(line, "notify-reload") {
			m.t.Errorf("the unit: %s", line)
		}
	}
	m.step("properties", "Type=notify", "ActiveState=active", "WatchdogUSec=30s", "StatusText=packaged is in force: 1 of 1 interface guarded")
	// CAP_DAC_READ_SEARCH 2, CAP_NET_ADMIN 12, CAP_PERFMON 38, CAP_BPF 39.
	caps := fmt.Sprintf("%016x", 1<<2|1<<12|1<<38|1<<39)
	m.step("process", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t"+caps, "CapBnd:\t"+caps, "CapPrm:\t"+caps)
}

func (m *machine) checkSteps() {
	m.step("status", `near +egress +packet-sockets +\w+ +guarded`, `run +process \d+`, `/ +sealed`)
	m.step("heard")
	event, err := os.ReadFile(filepath.Join(m.out, "event"))
	if err != nil || !bytes.Contains(event, []byte(`"comm":"arping"`)) || !bytes.Contains(event, []byte(`"cgroup":"/system.slice/check.service"`)) {
		m.t.Errorf("%v\n%s", err, event)
	}
	m.step("reload")
	m.step("reloaded")
	m.step("refused")
	m.step("unharmed", `near +egress +packet-sockets +\w+ +guarded`)
	m.step("restarted")
	m.step("stop")
	if out := m.step("stopped", `near +egress +packet-sockets +\w+ +guarded`); strings.Contains(out, "run ") {
		m.t.Errorf("run goes on: %s", out)
	}
	for line := range strings.Lines(m.step("journal", "packaged is in force", "error: ")) {
		// A kernel may refuse programs at LSM hooks to everybody.
		if strings.Contains(strings.ToLower(line), "permitted") && !strings.Contains(line, "32-bit system calls") {
			m.t.Errorf("the sandbox is too tight: %s", line)
		}
	}
	m.step("flush", "no policy is in force")
}

// announcements counts the ARP packets that arrived by the last byte of their sender's
// address.
func announcements(t testing.TB, far *lab.Receiver) map[byte]int {
	t.Helper()
	frames, counts := map[string]int{}, map[byte]int{}
	must(t, far.Drain(frames))
	var p filter.Packet
	for frame, n := range frames {
		p.Decode([]byte(frame), nil)
		if p.HasARP {
			counts[p.Bytes(filter.LayerARP)[17]] += n
		}
	}
	return counts
}
