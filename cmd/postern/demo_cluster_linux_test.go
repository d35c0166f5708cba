package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/fence"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestDemoCluster: every step of it has the outcome that it tells of.
func TestDemoCluster(t *testing.T) {
	if why := kernelWithout(t); why != "" {
		labtest.Cannot(t, why)
	}
	if raceDetector {
		t.Skip("the race detector sees no other process")
	}
	etcd := filepath.Join(t.TempDir(), "etcd")
	must(t, fence.BuildEtcd("../../integration/etcd", etcd))
	said, err := commandOf(t, "demo", "cluster", "--etcd", etcd).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	text := string(said)
	for _, want := range []string{"$ postern vips\nADDRESS", "n1 holds 2", "Two of three etcd servers are killed", "None came from a node whose successor had spoken."} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// When one is killed, others announce.
	for i, step := range strings.Split(text, "(SIGKILL)")[1:] {
		if !strings.Contains(step, "announces 10.8.1.") {
			t.Errorf("step %d: nobody announces: %s", i, step)
		}
	}
}

func TestDemoClusterWithoutEtcd(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(demoInside, demoRoot)
	var out strings.Builder
	if err := demoCluster(&out, ""); err == nil || !strings.Contains(err.Error(), "--etcd") {
		t.Errorf("%v", err)
	}
}
