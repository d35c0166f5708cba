package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/internal/control"
)

// All monitors see what run sees, each event once, and run prints it.
func TestRunEvents(t *testing.T) {
	r := startRun(t, onePolicy)
	type outcome struct {
		code      int
		out, errs string
	}
	const monitors = 3
	done := make(chan outcome)
	for range monitors {
		go func() {
			code, out, errs := r.command("monitor", "-n", "3", "--json")
			done <- outcome{code, out, errs}
		}()
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for n := uint64(1); ; n++ {
			e := someEvents()[0]
			e.Cookie = n
			select {
			case r.events <- e:
				time.Sleep(time.Millisecond)
			case <-stop:
				return
			}
		}
	}()
	for range monitors {
		o := <-done
		var first, n uint64
		for line := range strings.Lines(o.out) {
			var e control.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if first == 0 {
				first = e.Sender.Cookie
			}
			if e.Sender.Cookie != first+n {
				t.Errorf("event %d after %d", e.Sender.Cookie, first+n-1)
			}
			n++
		}
		if o.code != 0 || n != 3 || o.errs != "" {
			t.Errorf("%+v", o)
		}
	}
	for !strings.Contains(r.out.String(), "drop     no-foreign-arp  eth0  ARP who-has") {
		time.Sleep(time.Millisecond)
	}
}

// A monitor ends at an interrupt, which is no failure; when run ends it says so.
func TestMonitorEnds(t *testing.T) {
	r := startRun(t, onePolicy)
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errs output
	monitor := func(ctx context.Context) chan int {
		term, code := newTerm(strings.NewReader(""), &out, &errs), make(chan int, 1)
		r.around(r.sockets)(term)
		go func() { code <- term.run(ctx, []string{"monitor"}) }()
		for before := out.String(); out.String() == before; time.Sleep(time.Millisecond) {
			r.events <- someEvents()[0]
		}
		return code
	}
	first := monitor(ctx)
	interrupt()
	if code := <-first; code != 0 {
		t.Errorf("interrupted: %d: %s", code, errs.String())
	}
	second := monitor(t.Context())
	r.end()
	if code := <-second; code != exitMachine || !strings.Contains(errs.String(), "which handed on the events, has ended") {
		t.Errorf("run ended: %d: %s", code, errs.String())
	}
}

// Whoever floods the wire does not flood the journal.
func TestRunPrintsSome(t *testing.T) {
	var out, errs output
	r := &runner{t: newTerm(nil, &out, &errs), log: newLog(&errs)}
	events, second := r.hub.Read(), make(chan time.Time)
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.printSome(ctx, events, second) }()
	for range 2 {
		for range perSecond + 10 {
			r.hub.Publish(someEvents()[0])
		}
		for len(events.Events) > 0 {
			time.Sleep(time.Millisecond)
		}
		second <- time.Time{}
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2*perSecond {
		t.Errorf("%d lines", n)
	}
	if n := strings.Count(errs.String(), "more=10\n"); n != 2 {
		t.Error(errs.String())
	}
}
