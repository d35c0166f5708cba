// Bench measures postern beside what people would use instead of it: on the same frames, in the same
// run, in turns (A B A B …), so that what disturbs the machine disturbs all. It writes
// docs/PERFORMANCE.md and what it measured, from which integration/bench/plot draws. It works in
// network namespaces of its own, and needs root.
//
// It asserts nothing: it tells. How a policy decides and how it is enforced are other packages'.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"time"
)

// bench is one run of the program.
type bench struct {
	quick  bool
	cpu    int
	report report
}

// experiment measures one section of the report, or a few that belong together.
type experiment struct {
	name    string
	measure func(*bench) error
}

// In process comes first: a large heap changes what it costs others to allocate.
var experiments = []experiment{
	{"judge", judging},
	{"judge-many", judgingMany},
	{"send", sending},
	{"accept", accepting},
	{"refuse", refusing},
	{"another", elsewhere},
	{"veth", arriving},
	{"stack", ordinary},
	{"where", whereItGoes},
	{"shapes", shapes},
	{"sets", setSizes},
	{"interfaces", interfaces},
	{"options", optionPlaces},
	{"senders", twoSenders},
	{"monitor", monitored},
	{"control", controlling},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.BoolVar(&b.quick, "quick", false, "fewer and smaller: under two minutes")
	flags.IntVar(&b.cpu, "cpu", 1, "where the sender runs; a second one runs on CPU 0")
	only := flags.String("run", "", "only the experiments whose names match this regular expression")
	out := flags.String("o", "", "directory for PERFORMANCE.md and performance/results.json; none if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces and eBPF")
	}
	// What is measured makes no garbage, and is not to be stopped by the others' garbage.
	debug.SetGCPercent(800)
	if err := pin(b.cpu); err != nil {
		return err
	}
	b.report.machine = thisMachine(args)
	for _, e := range slices.DeleteFunc(slices.Clone(experiments), func(e experiment) bool { return !pattern.MatchString(e.name) }) {
		start := time.Now()
		if err := e.measure(b); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %.0f s\n", e.name, time.Since(start).Seconds())
	}
	if err := b.report.markdown(os.Stdout); err != nil || *out == "" {
		return err
	}
	return b.report.write(*out)
}

// pick is full, or quick where the run is to be quick.
func pick[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}

// course is that of most sections.
func (b *bench) course() course {
	return course{time.Millisecond, pick(b, 151, 15)}
}
