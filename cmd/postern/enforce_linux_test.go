package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/internal/control"
)

const fieldPolicy = `policy: field
guard: [{interfaces: [near, "later*"], hook: gate}]
sets:
  vips: {type: ipv4, elements: [192.0.2.10]}
  leases: {type: [mac, ipv4]}
rules:
  - {name: own, match: arp.src.proto_ipv4 in @vips, verdict: accept}
  - {name: leased, match: "(arp.src.hw_mac, arp.src.proto_ipv4) in @leases", verdict: accept}
  - {name: no-arp, match: arp, verdict: drop}
`

// TestEnforcement leads the commands through the life of a policy in a real kernel.
func TestEnforcement(t *testing.T) {
	f := newField(t)
	f.expect("without a guard", map[byte]bool{10: true, 11: true})
	if code, _, _ := f.command("status"); code != exitNo {
		t.Errorf("status of nothing: %d", code)
	}
	file := f.policy(fieldPolicy)
	if out := f.does("apply", "-f", file); !strings.Contains(out, "field is in force: 1 of 1 interface guarded") {
		t.Error(out)
	}
	f.expect("in force", map[byte]bool{10: true, 11: false})
	if out := f.does("status"); !strings.Contains(out, "near") || !strings.Contains(out, "guarded") {
		t.Error(out)
	}
	f.does("set", "add", "vips", "192.0.2.11", "192.0.2.16/30")
	f.does("set", "add", "leases", f.Ifi[0].HardwareAddr.String()+",192.0.2.30", "--ttl", "1h")
	f.expect("added", map[byte]bool{10: true, 11: true, 17: true, 20: false, 30: true, 31: false})
	if out := f.does("set", "list", "leases"); !strings.Contains(out, ",192.0.2.30  for 59m59.") {
		t.Error(out)
	}
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, "10.0.%d.%d\n", i/250, i%250)
	}
	if code, _, errs := f.commandWith(many.String(), "set", "add", "vips", "-"); code != 0 {
		t.Errorf("5,000 elements: %d: %s", code, errs)
	}
	if out := f.does("set", "list", "--json"); !strings.Contains(out, `{"name":"vips","types":["ipv4"],"elements":5003}`) {
		t.Error(out)
	}
	f.does("set", "del", "vips", "192.0.2.11")
	f.expect("deleted", map[byte]bool{10: true, 11: false})
	if out := f.does("list"); !strings.Contains(out, "own") || !strings.Contains(out, "no-arp") {
		t.Error(out)
	}
	if code, _, errs := f.command("apply", "-f", f.policy("policy: p\nguard: [{interfaces: [near]}]\nrules: [{name: r, match: arp.opcod, verdict: drop}]\n")); code != exitNo || !strings.Contains(errs, "policy.yaml:3:26: error") {
		t.Errorf("a wrong policy: %d: %s", code, errs)
	}
	if code, _, errs := f.command("apply", "-f", f.policy("policy: p\n")); code != exitNo || !strings.Contains(errs, "guards no interface") {
		t.Errorf("a policy without a guard: %d: %s", code, errs)
	}
	f.expect("after a wrong one", map[byte]bool{10: true, 11: false})
	f.does("flush")
	f.expect("flushed", map[byte]bool{10: true, 11: true})
}

func TestEnforcementConfirmed(t *testing.T) {
	f := newField(t)
	f.does("apply", "-f", f.policy(fieldPolicy))
	other := f.policy(strings.ReplaceAll(fieldPolicy, "192.0.2.10", "192.0.2.12"))
	if out := f.does("apply", "-f", other, "--confirm", "1h"); !strings.Contains(out, "goes back to field in 1h0m0s unless") && !strings.Contains(out, "goes back to field in 59m5") {
		t.Error(out)
	}
	f.expect("pending", map[byte]bool{10: false, 12: true})
	f.does("rollback")
	f.expect("rolled back", map[byte]bool{10: true, 12: false})
	f.does("apply", "-f", other, "--confirm", "1h")
	f.does("confirm")
	f.expect("confirmed", map[byte]bool{10: false, 12: true})
	if code, _, _ := f.command("rollback"); code != exitNo {
		t.Errorf("nothing is pending: %d", code)
	}
}

// fieldRun is a `postern run` in a field.
type fieldRun struct {
	*field
	out, errs output
	end       context.CancelFunc
	code      chan int
}

func (f *field) run(args ...string) *fieldRun {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	r := &fieldRun{field: f, end: cancel, code: make(chan int, 1)}
	term := f.term(newTerm(strings.NewReader(""), &r.out, &r.errs))
	go func() { r.code <- term.run(ctx, append([]string{"run"}, args...)) }()
	f.t.Cleanup(func() {
		r.end()
		r.code <- <-r.code
	})
	eventually(f.t, "run puts the policy in force", func() bool {
		select {
		case code := <-r.code:
			f.t.Fatalf("ended with %d: %s", code, r.errs.String())
		default:
		}
		return strings.Contains(r.errs.String(), "is in force")
	})
	return r
}

// TestEnforcementRun: the file is followed, events reach everyone, a device that comes is
// guarded, and what is in force stays.
func TestEnforcementRun(t *testing.T) {
	f := newField(t)
	file := f.policy(fieldPolicy)
	r := f.run("-f", file, "--metrics", "unix:"+f.sockets+"/metrics")
	f.expect("run", map[byte]bool{10: true, 11: false})

	monitors := make(chan []control.Event)
	for range 2 {
		go func() {
			_, out, _ := f.command("monitor", "-n", "2", "--json")
			var events []control.Event
			for line := range strings.Lines(out) {
				var e control.Event
				_ = json.Unmarshal([]byte(line), &e)
				events = append(events, e)
			}
			monitors <- events
		}()
	}
	for range 2 {
		var events []control.Event
		for events == nil {
			select {
			case events = <-monitors:
			default:
				f.send(11)
			}
		}
		for _, e := range events {
			if e.Verdict != "drop" || e.Rule != "no-arp" || e.Interface != "near" || e.Sender == nil || int(e.Sender.PID) != os.Getpid() ||
				!strings.HasPrefix(e.Summary, "ARP who-has 192.0.2.11") {
				t.Errorf("%+v", e)
			}
		}
	}
	if !strings.Contains(r.out.String(), "no-arp  near  ARP who-has 192.0.2.11") {
		t.Error(r.out.String())
	}
	scraped := &running{t: t, metrics: f.sockets + "/metrics"}
	if got := scraped.scrape(); !strings.Contains(got, `postern_interface_guarded{direction="egress",interface="near"} 1`) || !strings.Contains(got, `postern_rule_frames_total{rule="own"} 1`) {
		t.Error(got)
	}
	must(t, os.WriteFile(file, []byte("policy: p\nrules: nonsense\n"), 0o644))
	eventually(t, "the wrong file is reported", func() bool { return strings.Contains(r.errs.String(), "not put in force") })
	f.expect("after a wrong file", map[byte]bool{10: true, 12: false})
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(fieldPolicy, "192.0.2.10", "192.0.2.12")), 0o644))
	eventually(t, "the new file is in force", func() bool { return strings.Count(r.errs.String(), "is in force") == 2 })
	f.expect("after a change", map[byte]bool{10: false, 12: true})

	must(t, f.Do(0, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "later0"
		return netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
	}))
	eventually(t, "a device that comes is guarded", func() bool {
		_, out, _ := f.command("status")
		return strings.Contains(out, "later0")
	})
	r.end()
	if code := <-r.code; code != 0 {
		t.Errorf("ended with %d: %s", code, r.errs.String())
	}
	r.code <- 0
	f.expect("run has ended", map[byte]bool{10: false, 12: true})
	second := f.run("-f", file, "--flush-on-exit", "--quiet")
	f.expect("run again", map[byte]bool{10: false, 12: true})
	second.end()
	second.code <- <-second.code
	f.expect("flushed on exit", map[byte]bool{10: true, 12: true})
	if second.out.String() != "" {
		t.Errorf("--quiet: %s", second.out.String())
	}
}

// TestFrozen: the time to live of an element that a stopped process adds late is over.
func TestFrozen(t *testing.T) {
	f := newField(t)
	f.does("apply", "-f", f.policy(fieldPolicy))
	for _, ttl := range []string{"300ms", "1h"} {
		cmd := commandOf(t, "set", "add", "vips", "-", "--ttl", ttl)
		cmd.Env = append(cmd.Env, asCommandRoot+"="+f.host.Root)
		in, err := cmd.StdinPipe()
		must(t, err)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		must(t, f.Do(0, cmd.Start))
		// It reads standard input when it is past its beginning.
		reading(t, cmd.Process.Pid)
		must(t, cmd.Process.Signal(unix.SIGSTOP))
		time.Sleep(350 * time.Millisecond)
		must(t, cmd.Process.Signal(unix.SIGCONT))
		_, err = in.Write([]byte("192.0.2.40\n"))
		must(t, err)
		must(t, in.Close())
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		f.expect("time to live of "+ttl, map[byte]bool{40: ttl == "1h"})
	}
}

// TestEventsHandedOver: a run takes the events over from a monitor that was there before, and
// finds them again after someone flushed.
func TestEventsHandedOver(t *testing.T) {
	f := newField(t)
	file := f.policy(fieldPolicy)
	f.does("apply", "-f", file)
	var out, errs output
	ctx, interrupt := context.WithCancel(t.Context())
	before, code := f.term(newTerm(strings.NewReader(""), &out, &errs)), make(chan int)
	go func() { code <- before.run(ctx, []string{"monitor"}) }()
	eventually(t, "the monitor sees events", func() bool { f.send(11); return out.String() != "" })
	r := f.run("-f", file)
	eventually(t, "run waits", func() bool { return strings.Contains(r.errs.String(), "events are told to another process") })
	interrupt()
	if code := <-code; code != 0 {
		t.Errorf("the monitor: %d: %s", code, errs.String())
	}
	eventually(t, "run sees events", func() bool { f.send(11); return r.out.String() != "" })
	f.does("flush")
	f.expect("flushed", map[byte]bool{11: true})
	c, err := control.Dial(control.Path(f.sockets, fieldCookie(f)))
	must(t, err)
	defer c.Close()
	_, err = c.Reload(t.Context())
	must(t, err)
	f.expect("put in force again", map[byte]bool{11: false})
	seen := r.out.String()
	eventually(t, "run sees events again", func() bool { f.send(11); return r.out.String() != seen })
}

func fieldCookie(f *field) uint64 {
	f.t.Helper()
	cookie, err := f.host.Cookie()
	must(f.t, err)
	return cookie
}
