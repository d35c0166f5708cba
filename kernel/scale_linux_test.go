package kernel

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// manyRules is a policy of n rules that differ in what they compare.
func manyRules(n int, interfaces string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy: many\nguard: [{interfaces: [%s]}]\nsets: {vips: {type: ipv4, size: 2000000}}\nrules:\n", interfaces)
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, match: arp.src.proto_ipv4 == 10.%d.%d.%d && eth.src == iface.mac, verdict: accept}\n", i, i>>16, i>>8&255, i&255)
	}
	b.WriteString("  - {name: vip, match: arp.src.proto_ipv4 in @vips, verdict: accept}\n")
	return b.String()
}

// memory is what the machine has left, in MiB.
func memory(t testing.TB) (free int) {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &free); err == nil {
			return free >> 10
		}
	}
	t.Fatal("no MemAvailable")
	return 0
}

// TestScale: 1,000 interfaces, 10,000 rules and a set of 1,000,000 elements. With -v it tells what
// they took; it asserts only that they work. The first attachment of a tcx program to an interface
// waits for RCU under the lock of all interfaces (tcx_entry_sync), about 15 ms each.
func TestScale(t *testing.T) {
	interfaces, elements := 1000, 1_000_000
	if testing.Short() || raceEnabled {
		interfaces, elements = 20, 20_000
	}
	w := newWorld(t)
	must(t, w.Do(0, func() error {
		for i := range interfaces {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("many%d", i)
			if err := netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil {
				return err
			}
		}
		return nil
	}))
	timed := func(what string, fn func()) {
		debug.FreeOSMemory()
		before, start := memory(t), time.Now()
		fn()
		took := time.Since(start).Round(time.Microsecond)
		debug.FreeOSMemory()
		t.Logf("%-70s %12v  %5d MiB", what, took, before-memory(t))
	}
	for _, hook := range []string{"gate", "tc"} {
		for _, n := range []int{10, 1000, 10_000} {
			policy := "hook: " + hook + "\n" + manyRules(n, "near")
			timed(fmt.Sprintf("%s: apply %d rules on 1 interface", hook, n), func() { w.apply(policy) })
			timed(fmt.Sprintf("%s: apply them again", hook), func() { w.apply(policy) })
		}
		names := "near"
		for i := range interfaces {
			names += fmt.Sprintf(", many%d", i)
		}
		timed(fmt.Sprintf("%s: apply 10,000 rules on %d interfaces by name", hook, interfaces+1), func() { w.apply("hook: " + hook + "\n" + manyRules(10_000, names)) })
		timed(fmt.Sprintf("%s: apply 10,000 rules on %d interfaces by a prefix", hook, interfaces+1), func() { w.apply("hook: " + hook + "\n" + manyRules(10_000, "near, 'many*'")) })
		timed(hook+": status", func() {
			if got := len(w.guarded()); got != interfaces+1 {
				t.Errorf("%d interfaces are guarded", got)
			}
		})
		must(t, w.Flush())
	}
	w.apply(manyRules(10_000, "near"))
	list := make([][]string, elements)
	for i := range list {
		list[i] = []string{fmt.Sprintf("11.%d.%d.%d", i>>16&255, i>>8&255, i&255)}
	}
	timed(fmt.Sprintf("add %d elements to a set", elements), func() { must(t, w.AddToSet("vips", 0, list...)) })
	timed("add one more", func() { must(t, w.AddToSet("vips", 0, []string{"192.0.2.1"})) })
	timed("add one more", func() { must(t, w.AddToSet("vips", 0, []string{"192.0.2.2"})) })
	timed("give it another deadline", func() { must(t, w.AddToSet("vips", bootTime()+int64(time.Hour), []string{"192.0.2.2"})) })
	w.expect("added", false, 1, 2)
	timed("take it out", func() {
		if _, err := w.DeleteFromSet("vips", []string{"192.0.2.2"}); err != nil {
			t.Error(err)
		}
	})
	timed("apply the policy again", func() { w.apply(manyRules(10_000, "near")) })
	w.expect("deleted", false, 1)
	timed("list the set", func() {
		if all, err := w.ListSet("vips"); err != nil || len(all) != elements+1 {
			t.Errorf("%d elements, %v", len(all), err)
		}
	})
	timed("apply with a changed declaration of the set: its elements move", func() {
		w.apply(strings.Replace(manyRules(10_000, "near"), "size: 2000000", "size: 2000000, elements: [192.0.2.3]", 1))
	})
	w.expect("moved", false, 1, 3)
}
