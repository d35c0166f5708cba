package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

const relayUnit = "postern-relay.service"

const relayPolicy = `policy: packaged
guard: [{interfaces: [near]}]
sets: {bindings: {type: [mac, ipv4]}}
rules: [{name: own, match: "(eth.src, ip.src) in @bindings", verdict: accept}]
`

const relayConfig = `database: /var/lib/postern/relay.db
control: /run/postern/relay.sock
servers: [192.0.2.53]
interfaces: [{names: [near]}]
set: bindings
static: [{mac: "02:00:00:00:00:50", ip: 10.1.0.50, interface: near}]
`

// relayScript is what the machine in the container does when it has booted.
const relayScript = steps + `
main() { systemctl show -P MainPID postern-relay; }
inset() { postern set list bindings | grep -q "$1"; }
outset() { ! inset "$1"; }
config=/etc/postern/relay.yaml

step active until_ systemctl is-active postern-relay
step properties systemctl show postern-relay -p Type,ActiveState
step process cat "/proc/$(main)/status"
ip addr add 10.1.0.1/16 dev near
step serving until_ sh -c 'journalctl -o cat -u postern-relay | grep "msg=serving interface=near"'
step bindings postern bindings list -c $config
step inset until_ inset 10.1.0.50

sed -i s/10.1.0.50/10.1.0.51/ $config
cp $config /etc/good.yaml
step reload systemctl reload postern-relay
step reloaded until_ inset 10.1.0.51
step left until_ outset 10.1.0.50
echo 'hobs: 3' >>$config
step wrong systemctl reload postern-relay
step refused until_ sh -c 'systemctl show -P StatusText postern-relay | grep "the configuration before stays as it is"'
step unharmed postern bindings list -c /etc/good.yaml
cp /etc/good.yaml $config

old=$(main)
kill -KILL "$old"
step killed inset 10.1.0.51
step restarted until_ sh -c "[ \"\$(systemctl show -P MainPID postern-relay)\" != $old ] && systemctl is-active postern-relay"
step stop systemctl stop postern-relay
step stopped inset 10.1.0.51
step journal journalctl --no-pager -o cat -u postern-relay
`

// TestRelayService: the relay's unit in a booted container: in its sandbox it serves, is reloaded by
// systemctl, and comes again when it is killed.
func TestRelayService(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for a container")
	}
	nspawn := labtest.Tool(t, "systemd-nspawn", "systemd-container")
	pair, err := lab.New()
	must(t, err)
	defer pair.Close()
	bpffs, unmount, err := lab.BPFFS()
	must(t, err)
	defer unmount()
	m := newMachine(t, relayScript, map[string]string{"etc/postern/policy.yaml": relayPolicy, "etc/postern/relay.yaml": relayConfig}, unit, relayUnit)
	m.boot(nspawn, bpffs, int(pair.NS[0]), build(t))
	if t.Failed() {
		return
	}
	m.step("active")
	m.step("properties", "Type=notify", "ActiveState=active")
	// CAP_DAC_OVERRIDE 1, CAP_NET_BIND_SERVICE 10, CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_SYS_ADMIN 21, CAP_BPF 39.
	caps := fmt.Sprintf("%016x", 1<<1|1<<10|1<<12|1<<13|1<<21|1<<39)
	m.step("process", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t"+caps, "CapBnd:\t"+caps)
	m.step("bindings", `10\.1\.0\.50 .*near .*static`)
	for _, name := range []string{"serving", "inset", "reload", "reloaded", "left", "refused", "killed", "restarted", "stop", "stopped"} {
		m.step(name)
	}
	m.step("unharmed", `10\.1\.0\.51 .*static`)
	for line := range strings.Lines(m.step("journal", `relay.yaml:7:1: error: unknown key "hobs"`, "did you mean")) {
		if strings.Contains(strings.ToLower(line), "permitted") || strings.Contains(line, "denied") {
			t.Errorf("the sandbox is too tight: %s", line)
		}
	}
}

// What systemd makes of the relay's sandbox must not get worse.
func TestRelaySandbox(t *testing.T) {
	analyze := labtest.Tool(t, "systemd-analyze", "systemd")
	out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", "--threshold=60", relayUnit).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Overall exposure level for "+relayUnit) {
		t.Errorf("%v\n%s", err, out)
	}
}
