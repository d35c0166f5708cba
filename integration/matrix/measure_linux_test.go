package matrix

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/postern-fw/postern/integration/evasions"
)

// tally is what became of the frames of one path, or several.
type tally struct {
	forged, out          int // sent, and arrived at least once
	honest, once         int // sent, and arrived exactly once
	noForged, noHonest   int // not sendable by the path
	wronglyOut, lostOnes []evasions.Frame
}

func (t *tally) add(o tally) {
	t.forged, t.out, t.noForged = t.forged+o.forged, t.out+o.out, t.noForged+o.noForged
	t.honest, t.once, t.noHonest = t.honest+o.honest, t.once+o.once, t.noHonest+o.noHonest
}

func (t tally) String() string {
	return fmt.Sprintf("%d of %d forged frames got out, %d of %d honest ones arrived, each once", t.out, t.forged, t.once, t.honest)
}

// measure sends the frames of a role by a path, and says what became of them. What
// arrives is what was sent, or what wrap makes of it.
func (r *receiver) measure(s *sender, role *role, wrap func([]byte) []byte) (sum tally, err error) {
	frames := append(append([]evasions.Frame(nil), role.forged...), role.honest...)
	counts := make(map[string]*int, len(frames))
	arrived := make([]*int, len(frames))
	bodies := make([][]byte, len(frames))
	for i, f := range frames {
		bodies[i] = f.Bytes
		key := string(wrap(f.Bytes))
		if counts[key] == nil {
			counts[key] = new(int)
		}
		arrived[i] = counts[key]
	}
	var unsendable []bool
	for at := 0; at < len(bodies); at += maxBatch {
		not, err := s.send(bodies[at:min(at+maxBatch, len(bodies))])
		if err != nil {
			return sum, err
		}
		unsendable = append(unsendable, not...)
		err = r.settle(func(frame []byte) {
			if n := counts[string(frame)]; n != nil {
				*n++
			}
		})
		if err != nil {
			return sum, err
		}
	}
	for i, f := range frames {
		switch forged := i < len(role.forged); {
		case forged && unsendable[i]:
			sum.noForged++
		case forged:
			sum.forged++
			if *arrived[i] > 0 {
				sum.out++
				sum.wronglyOut = append(sum.wronglyOut, f)
			}
		case unsendable[i]:
			sum.noHonest++
		default:
			sum.honest++
			if *arrived[i] == 1 {
				sum.once++
			} else {
				sum.lostOnes = append(sum.lostOnes, f)
			}
		}
	}
	return sum, nil
}

func asSent(b []byte) []byte { return b }

// expectOpen: without a guard all get out, or a guarded run would prove nothing.
func (t tally) expectOpen(tb testing.TB, name string) {
	tb.Helper()
	if t.out != t.forged || t.once != t.honest || t.forged+t.noForged == 0 {
		tb.Errorf("%s: without a guard %s", name, t)
	}
}

// expectClosed: no forged frame gets out, and each honest one arrives once.
func (t tally) expectClosed(tb testing.TB, name string) {
	tb.Helper()
	if n := len(t.wronglyOut); n > 0 {
		tb.Errorf("%s: %d forged frames got out, the first: %x", name, n, t.wronglyOut[0].Bytes)
	}
	if n := len(t.lostOnes); n > 0 {
		tb.Errorf("%s: %d honest frames did not arrive once, the first: %x", name, n, t.lostOnes[0].Bytes)
	}
}

// table is what became of the frames by kind of path, in several runs.
type table struct {
	runs  []string
	kinds []string
	cells map[string]map[string]*tally // by kind and run
}

func (tb *table) add(run, kind string, t tally) {
	if tb.cells == nil {
		tb.cells = map[string]map[string]*tally{}
	}
	if !slices.Contains(tb.runs, run) {
		tb.runs = append(tb.runs, run)
	}
	if tb.cells[kind] == nil {
		tb.kinds = append(tb.kinds, kind)
		tb.cells[kind] = map[string]*tally{}
	}
	if tb.cells[kind][run] == nil {
		tb.cells[kind][run] = &tally{}
	}
	tb.cells[kind][run].add(t)
}

// total is the sum of a run over all kinds.
func (tb *table) total(run string) (sum tally) {
	for _, k := range tb.kinds {
		if c := tb.cells[k][run]; c != nil {
			sum.add(*c)
		}
	}
	return sum
}

// String prints a line for each kind: how many forged frames got out in each run, and
// how many honest ones arrived once, of those that were sent.
func (tb *table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\tNOT SENDABLE\t%s\n", strings.ToUpper(strings.Join(tb.runs, "\t")))
	line := func(name string, of func(run string) tally) {
		first := of(tb.runs[0])
		fmt.Fprintf(w, "%s\t%d\t", name, first.noForged+first.noHonest)
		for _, run := range tb.runs {
			c := of(run)
			fmt.Fprintf(w, "%d/%d out, %d/%d once\t", c.out, c.forged, c.once, c.honest)
		}
		fmt.Fprintln(w)
	}
	for _, k := range tb.kinds {
		line(k, func(run string) tally {
			if c := tb.cells[k][run]; c != nil {
				return *c
			}
			return tally{}
		})
	}
	line("all", tb.total)
	w.Flush()
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

// sums prints the totals alone.
func (tb *table) sums() string {
	var list []string
	for _, run := range tb.runs {
		list = append(list, fmt.Sprintf("%s: %s", run, tb.total(run)))
	}
	return strings.Join(list, "\n")
}
