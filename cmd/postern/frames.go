package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/internal/capture"
	"github.com/spf13/cobra"
)

// frames leads the frames of captures to a command, and its report to out.
type frames struct {
	t *term
	// out is flushed before anything is said on errs.
	out *bufio.Writer
	// lines flushes out after each frame: somebody is watching.
	lines bool
}

func newFrames(t *term) *frames {
	return &frames{t, bufio.NewWriterSize(t.out, 64<<10), isTerminal(t.out)}
}

// each calls do for every frame of the captures. What can be read of a damaged
// capture is; the error then comes at the end.
func (f *frames) each(captures []string, do func(name string, f *capture.Frame) error) error {
	var failed error
	for _, name := range captures {
		err := f.one(name, do)
		if flush := f.out.Flush(); err == nil && flush != nil {
			err = fileError(flush)
		}
		var damaged *capture.Error
		var refused *fs.PathError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &damaged):
			return err
		case errors.As(err, &refused):
			return &exitError{exitMachine, err}
		}
		fmt.Fprintf(f.t.errs, "postern: %v\n", damaged)
		failed = answerNo
	}
	return failed
}

func (f *frames) one(name string, do func(name string, f *capture.Frame) error) error {
	r, err := capture.Open(name, f.t.in)
	if err != nil {
		var damaged *capture.Error
		if errors.As(err, &damaged) {
			return err
		}
		return fileError(err)
	}
	defer r.Close()
	bar := newProgress(f.t, name)
	defer bar.done()
	for {
		frame, err := r.Next()
		if err != nil {
			_ = f.out.Flush() // each looks at it
			bar.done()
			f.tellSkipped(name, r.Skipped())
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := do(name, frame); err != nil {
			return err
		}
		if f.lines {
			if err := f.out.Flush(); err != nil {
				return fileError(err)
			}
		}
		bar.at(r)
	}
}

func (f *frames) tellSkipped(name string, s capture.Skipped) {
	if s.Frames > 0 {
		fmt.Fprintf(f.t.errs, "postern: %s: %s left out that %s not Ethernet, the first is frame %d: %s\n",
			name, count(s.Frames, "frame"), map[bool]string{true: "is", false: "are"}[s.Frames == 1], s.First, s.LinkType)
	}
}

// door is the interface that the frames are said to leave by.
type door struct {
	name, mac string
	hw        [6]byte
}

func (d *door) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.name, "iface", "", "let iface.name be `NAME`; else it is what a pcapng says")
	_ = cmd.RegisterFlagCompletionFunc("iface", completeInterfaces)
	cmd.Flags().StringVar(&d.mac, "iface-mac", "", "let iface.mac be `MAC`; else it is absent")
}

// completeInterfaces completes the name of one of this machine's interfaces.
func completeInterfaces(_ *cobra.Command, _ []string, word string) (names []string, _ cobra.ShellCompDirective) {
	here, _ := net.Interfaces() // without them there is nothing to complete
	for _, ifi := range here {
		if strings.HasPrefix(ifi.Name, word) {
			names = append(names, ifi.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// parse reads the flags.
func (d *door) parse() error {
	if d.mac == "" {
		return nil
	}
	hw, err := net.ParseMAC(d.mac)
	if err != nil || len(hw) != len(d.hw) {
		return usageError("--iface-mac: %q is no EUI-48 address; write it like 02:00:00:00:00:01", d.mac)
	}
	d.hw = [6]byte(hw)
	return nil
}

// meta is what is known of a captured frame. Its time stamp is the clock.
func (d *door) meta(f *capture.Frame) *filter.Meta {
	m := &filter.Meta{Time: f.Time, Iface: f.Iface, IfaceMAC: d.hw, HasIfaceMAC: d.mac != ""}
	if d.name != "" {
		m.Iface = d.name
	}
	if f.WireLen > len(f.Data) {
		m.WireLen = f.WireLen
	}
	return m
}

var captureExt = []string{"pcap", "pcapng", "cap", "gz"}
