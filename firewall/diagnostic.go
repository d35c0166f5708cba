package firewall

import "strings"

// Diagnostic is one finding about a policy file.
type Diagnostic struct {
	File string
	// Line and Col are counted from 1, Col in bytes; 0 where there is none.
	Line, Col int
	// Len is how many bytes the finding covers, at least 1.
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
// caret, remedy.
func (d *Diagnostic) String() string { panic("not written yet") }
