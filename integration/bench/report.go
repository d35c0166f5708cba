package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report is what was measured, on what.
type report struct {
	machine
	Sections []section `json:"sections"`
}

// machine is what was measured on, and how.
type machine struct {
	Date    string `json:"date"`
	Args    string `json:"args"`
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Commit  string `json:"commit"`
	Loadavg string `json:"loadavg"`
}

// section is one table, and a plot if something grows in it.
type section struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Text  string `json:"text"`
	// Axis names what grows, such as rules; "" if nothing does.
	Axis    string   `json:"axis,omitempty"`
	Results []result `json:"results"`
}

// write writes dir/PERFORMANCE.md and dir/performance/results.json.
func (r *report) write(dir string) error {
	data := filepath.Join(dir, "performance")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "results.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	var md strings.Builder
	if err := r.markdown(&md); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "PERFORMANCE.md"), []byte(md.String()), 0o644)
}

func (r *report) markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString(head)
	r.machine.markdown(&b)
	r.targets(&b)
	b.WriteString(notes)
	for _, s := range r.Sections {
		s.markdown(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// notes say what a program cannot know: why, and what was tried.
//
//go:embed notes.md
var notes string

const head = `# Performance
` + "`make bench`" + ` (root) measures all this and writes this file; ` + "`make bench-quick`" + ` does it with fewer turns and smaller
sizes in under two minutes. ` + "`go run ./integration/bench -run NAME`" + ` measures a part. What was measured is in
[performance/results.json](performance/results.json). Ratios count, not times.

Contenders take turns, base, side, side, base, on the same frame in the same run; a ratio is of one turn, and what
is printed is the median of all turns and the quartiles. Time is what the sender's thread had a CPU for. Frames are
ARP of 60 bytes, and leave by an ifb whose queueing discipline drops them (blackhole): hardly anything is
cheaper, so no guard can hide behind a device's own cost. A device that delivers costs three times as much; see
"Accepted frames that arrive". All policies and rulesets of a row decide the same, by the sender's protocol address.

`

func (s section) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n%s\n\n", s.Title, s.Text)
	var columns []column
	columns = append(columns, column{"", func(r result) string { return r.Name }})
	if s.Axis != "" {
		fmt.Fprintf(b, "![%s](performance/%s.svg)\n\n", s.Title, s.ID)
		columns = append(columns, column{s.Axis, func(r result) string { return thousands(r.X) }})
	}
	columns = append(columns, column{"time", func(r result) string { return duration(r.Cost.Median) }},
		column{"quartiles", func(r result) string { return duration(r.Cost.Low) + " to " + duration(r.Cost.High) }})
	if slices.ContainsFunc(s.Results, func(r result) bool { return r.Base != "" }) {
		columns = append(columns, column{"ratio", func(r result) string { return fmt.Sprintf("**%.2f**", r.Ratio.Median) }},
			column{"quartiles", func(r result) string { return fmt.Sprintf("%.2f to %.2f", r.Ratio.Low, r.Ratio.High) }},
			column{"compared with", func(r result) string { return r.Base + ", " + duration(r.BaseCost.Median) }})
	}
	if slices.ContainsFunc(s.Results, func(r result) bool { return r.Note != "" }) {
		columns = append(columns, column{"", func(r result) string { return r.Note }})
	}
	row := func(cell func(column) string) {
		for _, c := range columns {
			b.WriteString("| " + cell(c) + " ")
		}
		b.WriteString("|\n")
	}
	row(func(c column) string { return c.head })
	row(func(column) string { return "---" })
	for _, r := range s.Results {
		row(func(c column) string { return c.cell(r) })
	}
}

// column is one of a table.
type column struct {
	head string
	cell func(result) string
}

// duration says nanoseconds with three or four digits that mean something.
func duration(ns float64) string {
	switch {
	case ns < 100:
		return fmt.Sprintf("%.1f ns", ns)
	case ns < 1e5:
		return thousands(int(ns+0.5)) + " ns"
	case ns < 1e7:
		return fmt.Sprintf("%.0f µs", ns/1e3)
	case ns < 1e9:
		return fmt.Sprintf("%.0f ms", ns/1e6)
	}
	return fmt.Sprintf("%.2f s", ns/1e9)
}

// thousands is n with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (m machine) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "Measured on %s with %d × %s, Linux %s, %s", m.Date, m.CPUs, m.CPU, m.Kernel, m.Go)
	if m.Commit != "" {
		fmt.Fprintf(b, ", commit %s", m.Commit)
	}
	fmt.Fprintf(b, "; load average before: %s.\n", m.Loadavg)
}
