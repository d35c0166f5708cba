package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel"
)

// scrape reads the metrics at the UNIX socket that the arguments name.
func (r *running) scrape() string {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.metrics)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://postern/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s, %v\n%s", resp.Status, err, b)
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	f := newFake()
	text, err := os.ReadFile("testdata/sets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	count := &reloadCount{}
	c := &collector{f, count}
	if n := testutil.CollectAndCount(c); n != 3 { // lost events and the reloads
		t.Errorf("%d metrics while nothing is in force", n)
	}
	if _, err := f.Apply(kernel.Source{Name: "sets.yaml", Text: text}, kernel.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	// Two guards of one interface are one, and as good as the worse of them.
	f.status.Interfaces = append(f.status.Interfaces, kernel.Interface{Name: "eth0", Direction: "egress"}, kernel.Interface{Name: "eth0", Direction: "ingress", Guarded: true})
	f.status.LostEvents = 12
	count.done.Add(3)
	const want = `
# HELP postern_events_lost_total Events that found no room.
# TYPE postern_events_lost_total counter
postern_events_lost_total 12
# HELP postern_interface_guarded 1 if the interface is guarded, 0 if the policy wants it to be and it is not.
# TYPE postern_interface_guarded gauge
postern_interface_guarded{direction="egress",interface="eth0"} 0
postern_interface_guarded{direction="ingress",interface="eth0"} 1
# HELP postern_policy_info The policy in force, if there is one.
# TYPE postern_policy_info gauge
postern_policy_info{file="sets.yaml",policy="sets"} 1
# HELP postern_reloads_failed_total Policy files that were not put in force, which left the one before.
# TYPE postern_reloads_failed_total counter
postern_reloads_failed_total 0
# HELP postern_reloads_total Policies put in force by postern run after its first.
# TYPE postern_reloads_total counter
postern_reloads_total 3
# HELP postern_rule_bytes_total Bytes of the frames that matched a rule.
# TYPE postern_rule_bytes_total counter
postern_rule_bytes_total{rule="default"} 0
postern_rule_bytes_total{rule="leased"} 42
postern_rule_bytes_total{rule="malformed"} 420
# HELP postern_rule_frames_total Frames that matched a rule; the default and malformed frames count as rules.
# TYPE postern_rule_frames_total counter
postern_rule_frames_total{rule="default"} 0
postern_rule_frames_total{rule="leased"} 1
postern_rule_frames_total{rule="malformed"} 7
# HELP postern_set_elements Elements of a set.
# TYPE postern_set_elements gauge
postern_set_elements{set="leases"} 0
postern_set_elements{set="names"} 0
postern_set_elements{set="vips"} 2
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	f.refuses = unix.EIO
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err == nil {
		t.Error("a machine that does not answer is no machine without frames")
	}
}

// The loopback interface, by whatever name, is near enough.
func TestMetricsAddress(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "localhost:0"} {
		l, err := listenMetrics(addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("%s: %v", addr, l.Addr())
		}
		l.Close()
	}
}
