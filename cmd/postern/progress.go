package main

import (
	"time"

	"github.com/postern-fw/postern/internal/capture"
	"github.com/schollz/progressbar/v3"
)

// progress is a bar on errs, for a capture that takes more than a second and
// a person who would see nothing else. nil is no bar.
type progress struct {
	t      *term
	name   string
	start  time.Time
	frames int
	bar    *progressbar.ProgressBar
}

func newProgress(t *term, name string) *progress {
	if !isTerminal(t.errs) || isTerminal(t.out) {
		return nil
	}
	return &progress{t: t, name: name, start: time.Now()}
}

// at moves the bar to where r is.
func (p *progress) at(r *capture.Reader) {
	if p == nil {
		return
	}
	// The clock costs more than a frame.
	if p.frames++; p.frames%4096 != 0 {
		return
	}
	read, size := r.Progress()
	if p.bar == nil {
		if time.Since(p.start) < time.Second {
			return
		}
		if size == 0 {
			size = -1 // not known
		}
		p.bar = progressbar.NewOptions64(size, progressbar.OptionSetWriter(p.t.errs), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription(p.name), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	_ = p.bar.Set64(read)
}

// done takes the bar away. It may be called again.
func (p *progress) done() {
	if p != nil && p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}
