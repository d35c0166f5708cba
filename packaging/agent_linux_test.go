package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestAgentUnits: the agent's units are sound, the fence comes before any network, and the agent after
// the fence.
func TestAgentUnits(t *testing.T) {
	analyze := labtest.Tool(t, "systemd-analyze", "systemd")
	const agent, fence = "postern-agent.service", "postern-agent-fence.service"
	dir := t.TempDir()
	for _, name := range []string{agent, fence} {
		b, err := os.ReadFile(name)
		must(t, err)
		// Elsewhere the binary is installed.
		text := strings.ReplaceAll(string(b), "ExecStart=postern ", "ExecStart=/bin/true ")
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", "--threshold=60", name).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for _, want := range map[string][]string{
			fence: {"Before=network-pre.target", "DefaultDependencies=no", "AssertPathIsMountPoint=/sys/fs/bpf"},
			agent: {"Requires=" + fence + "\n", "After=" + fence + " "},
		}[name] {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
	}
	cmd := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, agent), filepath.Join(dir, fence))
	out, _ := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "postern-agent") {
			t.Errorf("%s", line)
		}
	}
}
