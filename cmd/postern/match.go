package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/internal/capture"
	"github.com/spf13/cobra"
)

func newMatch(t *term) *cobra.Command {
	var numbers, asJSON bool
	cmd := &cobra.Command{
		Use:   "match EXPR CAPTURE...",
		Short: "Show the frames of captures that match an expression",
		Long: `match reads pcap and pcapng captures and shows the frames for which EXPR is true,
as Wireshark's display filter does. A capture named - is standard input.

Exit code 0, whether or not a frame matches; 1 if a capture is damaged: the
frames before the damage are shown.`,
		Example: `  postern match 'arp.opcode == 2 && arp.src.hw_mac != eth.src' trace.pcapng
  tcpdump -U -w - -i eth0 | postern match 'dhcp.option.dhcp in {2, 5, 6}' -
  postern match -n 'vlan.id == 0' trace.pcap`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeMatch,
		RunE: func(_ *cobra.Command, args []string) error {
			expr, err := filter.Parse(args[0], nil)
			if err != nil {
				return expressionError(t, args[0], err)
			}
			return match(t, expr, args[1:], numbers, asJSON)
		},
	}
	cmd.Flags().BoolVarP(&numbers, "numbers", "n", false, "the frames' numbers only, one a line")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object a frame")
	cmd.MarkFlagsMutuallyExclusive("numbers", "json")
	return cmd
}

// matched is a matching frame in JSON.
type matched struct {
	File    string `json:"file"`
	Frame   int    `json:"frame"`
	Summary string `json:"summary"`
}

func match(t *term, expr filter.Expr, captures []string, numbers, asJSON bool) error {
	fs := newFrames(t)
	var enc *json.Encoder
	if asJSON {
		enc = newJSON(fs.out)
	}
	var door door
	var p filter.Packet
	var line []byte
	return fs.each(captures, func(name string, f *capture.Frame) error {
		p.Decode(f.Data, door.meta(f))
		if !filter.Eval(expr, &p, nil) {
			return nil
		}
		if asJSON {
			return ioError(enc.Encode(matched{name, f.Number, p.Summary()}))
		}
		line = line[:0]
		if len(captures) > 1 && !numbers {
			line = append(append(line, name...), ':')
		}
		line = strconv.AppendInt(line, int64(f.Number), 10)
		if !numbers {
			line = p.AppendSummary(append(line, "  "...))
		}
		_, err := fs.out.Write(append(line, '\n'))
		return ioError(err)
	})
}

func ioError(err error) error {
	if err == nil {
		return nil
	}
	return fileError(err)
}

// expressionError shows the expression with a caret under the mistake.
func expressionError(t *term, src string, err error) error {
	var e *filter.Error
	if !errors.As(err, &e) {
		return usageError("%w", err)
	}
	line, before := src, src[:min(e.Offset, len(src))]
	if i := strings.LastIndexByte(before, '\n'); i >= 0 {
		line, before = line[i+1:], before[i+1:]
	}
	line, _, _ = strings.Cut(line, "\n")
	// A tab stays one, so that the caret is where the terminal puts the text.
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before)
	carets := strings.Repeat("^", max(1, min(e.Len, len(line)-len(before))))
	msg := fmt.Sprintf("%s\n  %s\n  %s%s", e.Msg, line, indent, t.paintErrs.in(red, carets))
	if e.Hint != "" {
		msg += "\n" + e.Hint
	}
	return usageError("%s", msg)
}

// completeMatch completes the field's name an expression ends with, and then
// captures.
func completeMatch(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return captureExt, cobra.ShellCompDirectiveFilterFileExt
	}
	head := strings.TrimRightFunc(word, func(r rune) bool {
		return r == '.' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
	})
	var found []string
	for _, f := range filter.Fields() {
		if strings.HasPrefix(f.Name, word[len(head):]) {
			found = append(found, head+f.Name+"\t"+f.Doc)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
