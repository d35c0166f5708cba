package main

import (
	"encoding/json"
	"io"
	"os"

	"github.com/postern-fw/postern/firewall"
	xterm "golang.org/x/term"
)

// term is where a command reads and writes.
type term struct {
	in        io.Reader
	out, errs io.Writer
	// paint is for out, paintErrs for errs.
	paint, paintErrs paint
	// machine is where policies are put in force.
	machine machine
}

func newTerm(in io.Reader, out, errs io.Writer) *term {
	return &term{in: in, out: out, errs: errs, paint: newPaint(out), paintErrs: newPaint(errs), machine: thisMachine()}
}

// paint colours text, if it is true.
type paint bool

func newPaint(w io.Writer) paint {
	return paint(isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && xterm.IsTerminal(int(f.Fd()))
}

// The colours, by their ANSI numbers.
const (
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (p paint) in(colour, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// verdict pads the word to the width of the longest.
func (p paint) verdict(v firewall.Verdict) string {
	colour := map[firewall.Verdict]string{firewall.Drop: red, firewall.Accept: green, firewall.Forward: cyan}[v]
	return p.in(colour, (v.String() + "   ")[:7])
}

// newJSON writes one object a line. Frames hold no HTML.
func newJSON(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}
