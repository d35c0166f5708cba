package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	r.machine.markdown(&b)
	for _, s := range r.Sections {
		s.markdown(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s section) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n%s\n\n", s.Title, s.Text)
	if s.Axis != "" {
		fmt.Fprintf(b, "![%s](performance/%s.svg)\n\n| | %s ", s.Title, s.ID, s.Axis)
	} else {
		b.WriteString("| ")
	}
	b.WriteString("| ns | half of all turns | times | half of all turns |\n|---|---|---|---|---|")
	if s.Axis != "" {
		b.WriteString("---|")
	}
	b.WriteString("\n")
	for _, r := range s.Results {
		fmt.Fprintf(b, "| %s ", r.Name)
		if s.Axis != "" {
			fmt.Fprintf(b, "| %s ", thousands(r.X))
		}
		fmt.Fprintf(b, "| %s | %s to %s | %.2f | %.2f to %.2f |\n", figure(r.Cost.Median), figure(r.Cost.Low), figure(r.Cost.High),
			r.Ratio.Median, r.Ratio.Low, r.Ratio.High)
	}
}

// figure is a number of nanoseconds with three or four digits that mean something.
func figure(ns float64) string {
	if ns < 100 {
		return fmt.Sprintf("%.1f", ns)
	}
	return thousands(int(ns + 0.5))
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
