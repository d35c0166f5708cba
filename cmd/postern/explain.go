package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/internal/capture"
	"github.com/spf13/cobra"
)

func newExplain(t *term) *cobra.Command {
	var file string
	var asJSON bool
	var door door
	cmd := &cobra.Command{
		Use:   "explain -f FILE (CAPTURE#N | HEX)",
		Short: "Tell why a policy decides on a frame as it does",
		Long: `explain takes one frame, the N-th of a capture or one given in hexadecimal, and
leads it through the policy: which rules match, which do not and what their
fields are in this frame, and the verdict.`,
		Example: `  postern explain -f policy.yaml trace.pcapng#12
  postern explain -f policy.yaml ffffffffffff 020000000001 0806 0001080006040001`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := door.parse(); err != nil {
				return err
			}
			f, err := oneFrame(t, args)
			if err != nil {
				return err
			}
			_, fw, err := mustPolicy(t, file)
			if err != nil {
				return err
			}
			var p filter.Packet
			p.Decode(f.Data, door.meta(f))
			return explain(t, fw, &p, asJSON)
		},
	}
	policyFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object")
	door.flags(cmd)
	return cmd
}

// oneFrame reads CAPTURE#N, or hexadecimal digits that may be spread over
// several words.
func oneFrame(t *term, args []string) (*capture.Frame, error) {
	if name, number, ok := cutLast(args[0], "#"); ok && len(args) == 1 {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return nil, usageError("%q is no frame number; they count from 1", number)
		}
		return frameOf(t, name, n)
	}
	digits := strings.NewReplacer(" ", "", ":", "", "-", "", "\n", "", "\t", "").Replace(strings.Join(args, ""))
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, usageError("%q is neither a frame of a capture (%s#1) nor hexadecimal digits", args[0], args[0])
	}
	return &capture.Frame{Time: 1, Data: b, WireLen: len(b)}, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func frameOf(t *term, name string, n int) (*capture.Frame, error) {
	r, err := capture.Open(name, t.in)
	var damaged *capture.Error
	if errors.As(err, &damaged) {
		return nil, &exitError{exitNo, err}
	}
	if err != nil {
		return nil, fileError(err)
	}
	defer r.Close()
	for last := 0; ; {
		switch f, err := r.Next(); {
		case err == io.EOF && r.Skipped().Frames > 0 && n > last:
			return nil, usageError("%s has no Ethernet frame %d; %s left out: %s", name, n, count(r.Skipped().Frames, "frame"), r.Skipped().LinkType)
		case err == io.EOF:
			return nil, usageError("%s has %s, no frame %d", name, count(last, "frame"), n)
		case err != nil:
			return nil, &exitError{exitNo, err}
		case f.Number > n:
			return nil, usageError("frame %d of %s is not Ethernet: %s", n, name, r.Skipped().LinkType)
		case f.Number == n:
			f.Data = bytes.Clone(f.Data)
			return f, nil
		default:
			last = f.Number
		}
	}
}

// explained is the walk in JSON.
type explained struct {
	Summary   string `json:"summary"`
	Length    int    `json:"length"`
	Malformed string `json:"malformed,omitempty"`
	Walk      []step `json:"walk"`
	decision
}

type step struct {
	Rule      string `json:"rule"`
	Line      int    `json:"line"`
	Matched   bool   `json:"matched"`
	OverLimit bool   `json:"over_limit,omitempty"`
	Does      string `json:"does"`
}

func explain(t *term, fw *firewall.Firewall, p *filter.Packet, asJSON bool) error {
	d, walk := fw.Explain(p)
	if asJSON {
		e := explained{Summary: p.Summary(), Length: len(p.Bytes(filter.LayerFrame)), Walk: []step{}, decision: *newDecision(&d)}
		if p.Malformed != 0 {
			e.Malformed = p.Malformed.String()
		}
		for _, s := range walk {
			e.Walk = append(e.Walk, step{s.Rule.Name, s.Rule.Line, s.Matched, s.Over, s.Rule.Does()})
		}
		return ioError(newJSON(t.out).Encode(e))
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s, %d bytes\n", p.Summary(), len(p.Bytes(filter.LayerFrame)))
	for i := range walk {
		writeStep(&out, t.paint, &walk[i], p)
	}
	fmt.Fprintf(&out, "%s %s\n", t.paint.verdict(d.Verdict), because(&d))
	_, err := out.WriteTo(t.out)
	return ioError(err)
}

func writeStep(out *bytes.Buffer, paint paint, s *firewall.Step, p *filter.Packet) {
	word := "no match"
	switch {
	case s.Over:
		word = paint.in(red, "over the limit")
	case s.Matched:
		word = paint.in(green, "match: "+s.Rule.Does())
	}
	fmt.Fprintf(out, "  line %d, %s: %s\n", s.Rule.Line, s.Rule.Name, word)
	if s.Rule.Match == nil {
		return
	}
	fmt.Fprintf(out, "      %s\n", s.Rule.Match)
	for _, f := range fieldsOf(s.Rule.Match, nil) {
		fmt.Fprintf(out, "        %s: %s\n", f.Name, valuesOf(f, p))
	}
}
