package firewall

import (
	"reflect"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		src  string
		want []Guard
		seal []string
	}{
		{"guard: [{interfaces: [eth0]}]", []Guard{{Interfaces: []string{"eth0"}}}, nil},
		{"guard: [{interfaces: [eth0], senders: all, hook: tc}]", []Guard{{Interfaces: []string{"eth0"}, AllSenders: true, Hook: HookTC}}, nil},
		// The policy's hook is that of guards that name none; it comes first whatever the order of the file.
		{"guard: [{interfaces: [a]}, {interfaces: [b], hook: tc}]\nhook: gate",
			[]Guard{{Interfaces: []string{"a"}, Hook: HookGate}, {Interfaces: []string{"b"}, Hook: HookTC}}, nil},
		// What comes in is judged whoever sent it, and before netfilter.
		{"hook: gate\nguard: [{interfaces: [a], direction: ingress}]",
			[]Guard{{Interfaces: []string{"a"}, Direction: Ingress, AllSenders: true, Hook: HookTC}}, nil},
		{"seal: /", nil, []string{"/"}},
		{"seal: [/system.slice, user.slice]", nil, []string{"/system.slice", "user.slice"}},
	} {
		p, _, err := Parse("p.yaml", []byte("policy: p\n"+c.src+"\n"))
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		if !reflect.DeepEqual(p.Guard, c.want) || !reflect.DeepEqual(p.Seal, c.seal) {
			t.Errorf("%s:\n got %+v %q\nwant %+v %q", c.src, p.Guard, p.Seal, c.want, c.seal)
		}
	}
	for src, want := range map[string]string{
		"hook: xdp":       "hook cannot be",
		"seal: ''":        "bad cgroup",
		"seal: [/a/../b]": "bad cgroup",
		"guard: [{interfaces: [a], direction: ingress, senders: packet-sockets}]": "what comes in was sent elsewhere",
		"guard: [{interfaces: [a], direction: ingress, hook: gate}]":              "the gate is at the egress only",
	} {
		if _, _, err := Parse("p.yaml", []byte("policy: p\n"+src+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v\nwant %s", src, err, want)
		}
	}
}
