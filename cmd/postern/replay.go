package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/internal/capture"
	"github.com/spf13/cobra"
)

func newReplay(t *term) *cobra.Command {
	var file string
	r := replay{t: t}
	cmd := &cobra.Command{
		Use:   "replay -f FILE CAPTURE...",
		Short: "Judge the frames of captures by a policy",
		Long: `replay reads pcap and pcapng captures and tells each frame's verdict and the rule
that decided, then how often each rule matched. Limits run by the captures' time
stamps. Nothing is sent. A capture named - is standard input.

Exit code 0, whatever the verdicts; 1 if the policy is wrong or a capture is
damaged: the frames before the damage are judged.`,
		Example: `  postern replay -f policy.yaml trace.pcapng
  postern replay -f policy.yaml -w dropped.pcapng trace.pcapng
  postern replay -f policy.yaml --json - < trace.pcap | jq 'select(.verdict == "drop")'`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return captureExt, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(_ *cobra.Command, captures []string) error {
			if err := r.door.parse(); err != nil {
				return err
			}
			policy, fw, err := mustPolicy(t, file)
			if err != nil {
				return err
			}
			r.fw, r.width = fw, len("malformed")
			for _, rule := range policy.Rules {
				r.width = min(maxWidth, max(r.width, len(rule.Name)))
			}
			return r.run(captures)
		},
	}
	policyFlag(cmd, &file)
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "one object a frame, and no counts")
	cmd.Flags().StringVarP(&r.dropped, "write", "w", "", "write the dropped frames to `OUT`.pcapng, each with a comment that names its rule")
	_ = cmd.MarkFlagFilename("write", "pcapng")
	r.door.flags(cmd)
	return cmd
}

// maxWidth is how wide the column of rules may be; longer names stand out.
const maxWidth = 24

type replay struct {
	t       *term
	fw      *firewall.Firewall
	door    door
	asJSON  bool
	dropped string

	fs       *frames
	enc      *json.Encoder
	w        *capture.Writer
	several  bool
	width    int // of the column of rules
	packet   filter.Packet
	line     []byte
	verdicts [3]int
	audited  int

	// current is the capture being read and number its last frame; shift is added
	// to its time stamps.
	current    string
	number     int
	shift, now int64
}

func (r *replay) run(captures []string) (err error) {
	r.fs, r.several = newFrames(r.t), len(captures) > 1
	r.enc = newJSON(r.fs.out)
	if r.dropped != "" {
		finish, err := r.writeDropped(captures)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, finish()) }()
	}
	err = r.fs.each(captures, r.frame)
	if r.asJSON || err != nil && err != answerNo {
		return err
	}
	return errors.Join(err, r.counts())
}

// writeDropped opens the capture of dropped frames; finish completes it.
func (r *replay) writeDropped(captures []string) (finish func() error, err error) {
	if r.dropped == capture.Stdin {
		return nil, usageError("-w: standard output holds the report; name a file")
	}
	if st, err := os.Stat(r.dropped); err == nil {
		for _, name := range captures {
			if in, err := os.Stat(name); err == nil && os.SameFile(st, in) {
				return nil, usageError("-w: %s is a capture to be read; name another file", r.dropped)
			}
		}
	}
	f, err := os.Create(r.dropped)
	if err != nil {
		return nil, &exitError{exitMachine, err}
	}
	if r.w, err = capture.NewWriter(f); err != nil {
		f.Close()
		return nil, fileError(err)
	}
	return func() error { return ioError(errors.Join(r.w.Flush(), f.Close())) }, nil
}

func (r *replay) frame(name string, f *capture.Frame) error {
	m := r.door.meta(f)
	m.Time = r.clock(name, f)
	r.packet.Decode(f.Data, m)
	d := r.fw.Classify(&r.packet)
	r.verdicts[d.Verdict]++
	if d.Audited {
		r.audited++
	}
	if r.w != nil && d.Verdict == firewall.Drop {
		if err := r.w.Write(f, "postern: dropped by "+because(&d)); err != nil {
			return &exitError{exitMachine, err}
		}
	}
	if r.asJSON {
		j := newDecision(&d)
		j.File, j.Frame, j.Summary = name, f.Number, r.packet.Summary()
		return ioError(r.enc.Encode(j))
	}
	return r.print(name, f, &d)
}

// clock is the time stamp, but a capture older than the one before goes on where
// that ended: for limits, time that runs backwards would stand still.
func (r *replay) clock(name string, f *capture.Frame) int64 {
	if name != r.current || f.Number <= r.number {
		r.current, r.shift = name, max(0, r.now-f.Time)
	}
	r.number = f.Number
	if f.Time < math.MaxInt64-r.shift {
		r.now = f.Time + r.shift
	}
	return r.now
}

func (r *replay) print(name string, f *capture.Frame, d *firewall.Decision) error {
	b := r.line[:0]
	if r.several {
		b = append(append(b, name...), ':')
	}
	b = strconv.AppendInt(b, int64(f.Number), 10)
	b = append(append(b, "  "...), r.t.paint.verdict(d.Verdict)...)
	b = append(b, ' ')
	rule := len(b)
	b = append(b, because(d)...)
	for len(b) < rule+r.width {
		b = append(b, ' ')
	}
	b = append(r.packet.AppendSummary(append(b, "  "...)), '\n')
	r.line = b
	_, err := r.fs.out.Write(b)
	return ioError(err)
}

// because names what decided: a rule, the default, or what is malformed.
func because(d *firewall.Decision) string {
	s := d.RuleName()
	switch {
	case d.Reason.Malformed():
		s = d.Reason.String()
	case d.Reason != firewall.ReasonRule && d.Reason != firewall.ReasonDefault:
		s += " (" + d.Reason.String() + ")"
	}
	if d.Verdict == firewall.Forward && d.Rule != nil {
		s += " to " + d.Rule.Iface
	}
	if d.Audited {
		s += " (audit: would drop)"
	}
	return s
}

// counts tells how often each rule matched.
func (r *replay) counts() error {
	v := r.verdicts
	w := bufio.NewWriter(r.t.out)
	fmt.Fprintf(w, "\n%s: %d accepted, %d dropped, %d forwarded", count(v[0]+v[1]+v[2], "frame"),
		v[firewall.Accept], v[firewall.Drop], v[firewall.Forward])
	if r.audited > 0 {
		fmt.Fprintf(w, "; %d accepted in audit mode only", r.audited)
	}
	fmt.Fprintln(w)
	counters := r.fw.Counters()
	for i := range counters {
		c := &counters[i]
		fmt.Fprintf(w, "%10d  %s\n", c.Frames, counterName(counters, i))
	}
	return ioError(w.Flush())
}

// counterName: the last two counters are no rules'.
func counterName(counters []firewall.Counter, i int) string {
	switch {
	case counters[i].Rule != nil:
		return counters[i].Rule.Name
	case i == len(counters)-1:
		return "malformed"
	}
	return "default"
}

// decision is a Decision in JSON.
type decision struct {
	File    string   `json:"file,omitempty"`
	Frame   int      `json:"frame,omitempty"`
	Verdict string   `json:"verdict"`
	Rule    string   `json:"rule"`
	Reason  string   `json:"reason"`
	Iface   string   `json:"iface,omitempty"`
	Mark    *uint32  `json:"mark,omitempty"`
	Effects []string `json:"effects,omitempty"`
	Audited bool     `json:"audited,omitempty"`
	Summary string   `json:"summary"`
}

func newDecision(d *firewall.Decision) *decision {
	j := &decision{Verdict: d.Verdict.String(), Rule: d.RuleName(), Reason: d.Reason.String(), Audited: d.Audited}
	if d.Verdict == firewall.Forward && d.Rule != nil {
		j.Iface = d.Rule.Iface
	}
	if d.Marked {
		j.Mark = &d.Mark
	}
	for i := range d.Effects() {
		e := d.Effect(i)
		j.Effects = append(j.Effects, e.Name)
	}
	return j
}
