package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tunnels are the protocols that carry frames or packets which are not the
// outermost.
var tunnels = strings.Fields("icmp icmpv6 vxlan geneve gre gtp gtpprime l2tp mpls pwethheuristic pwethcw pwethnocw pppoes pbb capwap.data " +
	"teredo erspan mipv6 ipcomp ieee8021ah nsh ayiya lisp-data wlccp etherip eoip macsec vntag fabricpath trill brcm_tag dsa batadv olsr hip " +
	"vxlan_gpe gue openvpn wg esp ppp tzsp sflow cfp cmd")

// tshark runs tshark over the capture and gives what it prints.
func tshark(t testing.TB, capture string, more ...string) []byte {
	t.Helper()
	_, err := exec.LookPath("tshark")
	need(t, err == nil, "tshark")
	args := []string{"-n", "-r", capture, "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"}
	for _, p := range tunnels {
		args = append(args, "--disable-protocol", p)
	}
	var stderr strings.Builder
	cmd := exec.Command("tshark", append(args, more...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.Contains(stderr.String(), "Lua: ") {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	return out
}

// matches is a set of frames: matches[i] tells of the i-th frame, from 0.
type matches []bool

// matchAll evaluates every filter over the frames in one pass of tshark, which
// compiles a display filter for each tap.
func matchAll(t testing.TB, frames []captured, filters []string) []matches {
	t.Helper()
	dir := t.TempDir()
	capture, list := filepath.Join(dir, "all.pcap"), filepath.Join(dir, "filters")
	writeCapture(t, capture, frames)
	if err := os.WriteFile(list, []byte(strings.Join(filters, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := make([]matches, len(filters))
	for i := range all {
		all[i] = make(matches, len(frames))
	}
	out := tshark(t, capture, "-q", "-X", "lua_script:testdata/listen.lua", "-X", "lua_script1:"+list)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var filter, frame int
		if n, _ := fmt.Sscanf(lines.Text(), "MATCH %d %d", &filter, &frame); n == 2 {
			all[filter-1][frame-1] = true
		}
	}
	return all
}

// matchOne evaluates one filter the way a person would: tshark -Y.
func matchOne(t testing.TB, frames []captured, filter string) matches {
	t.Helper()
	capture := filepath.Join(t.TempDir(), "one.pcap")
	writeCapture(t, capture, frames)
	m := make(matches, len(frames))
	for _, field := range bytes.Fields(tshark(t, capture, "-Y", filter, "-T", "fields", "-e", "frame.number")) {
		var frame int
		if _, err := fmt.Sscan(string(field), &frame); err != nil {
			t.Fatal(err)
		}
		m[frame-1] = true
	}
	return m
}
