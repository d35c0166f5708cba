package firewall

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Diagnostic is one finding about a policy file.
type Diagnostic struct {
	File string
	// Line and Col are counted from 1, Col in characters; 0 where there is none.
	Line, Col int
	// Len is how many characters the finding covers.
	Len     int
	Warning bool
	Msg     string
	// Hint is the remedy, or "".
	Hint string
	// Source is the whole line, without its newline.
	Source string
}

// Diagnostics is what is wrong with a policy. As an error it has at least one
// finding that is no warning.
type Diagnostics []Diagnostic

// Error gives every finding as a compiler would, with line and caret.
func (d Diagnostics) Error() string {
	var b strings.Builder
	for i := range d {
		b.WriteString(d[i].String())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// String is the finding as a compiler would print it: place, message, line and
// caret, remedy. It ends in a newline.
func (d *Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", d.Line, d.Col)
	}
	kind := "error"
	if d.Warning {
		kind = "warning"
	}
	fmt.Fprintf(&b, ": %s: %s\n", kind, d.Msg)
	if d.Source != "" {
		line, caret := excerpt(d.Source, d.Col, d.Len)
		fmt.Fprintf(&b, "    %s\n    %s\n", line, caret)
	}
	if d.Hint != "" {
		fmt.Fprintf(&b, "    %s\n", d.Hint)
	}
	return b.String()
}

// maxExcerpt keeps a finding in a machine-made line of a megabyte readable.
const maxExcerpt = 160

// excerpt gives the line, tabs as one space, and the carets under it.
func excerpt(src string, col, n int) (line, caret string) {
	r := []rune(strings.ReplaceAll(src, "\t", " "))
	at := min(max(col-1, 0), len(r))
	if len(r) > maxExcerpt {
		from := max(0, min(at-maxExcerpt/2, len(r)-maxExcerpt))
		r, at = r[from:from+maxExcerpt], at-from
	}
	n = max(1, min(n, len(r)-at))
	return string(r), strings.Repeat(" ", at) + strings.Repeat("^", n)
}

// runes counts the characters of s, invalid bytes as one each.
func runes(s string) int { return utf8.RuneCountInString(s) }
