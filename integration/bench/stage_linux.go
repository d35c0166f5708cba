package main

import (
	"errors"
	"fmt"
)

// stage is what a section is measured on: worlds that are there at the same time, and the pairs that
// take turns in them.
type stage struct {
	*bench
	worlds []*world
	pairs  []pair
}

func (b *bench) stage() *stage { return &stage{bench: b} }

// close takes the worlds away.
func (s *stage) close() error {
	var errs []error
	for _, w := range s.worlds {
		errs = append(errs, w.Close())
	}
	s.worlds, s.pairs = nil, nil
	return errors.Join(errs...)
}

// world is a new one, guarded by what guard does.
func (s *stage) world(guard func(*world) error) (*world, error) {
	w, err := newWorld()
	if err != nil {
		return nil, err
	}
	s.worlds = append(s.worlds, w)
	return w, guard(w)
}

func unguarded(*world) error { return nil }

// way is how a frame is sent.
type way string

const (
	byRing   way = "TX_RING"
	bySendto way = "sendto"
	byBypass way = "sendto, PACKET_QDISC_BYPASS"
)

// short is for the names of sections.
var short = map[way]string{byRing: "ring", bySendto: "sendto", byBypass: "bypass"}

// sender makes a side of sending the frame from the world.
func (s *stage) sender(w *world, name string, how way, frame []byte) (*side, error) {
	x, err := w.open(frame, how)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &side{name: name, run: timed(x.send)}, nil
}

// versus has the side take turns with the base.
func (s *stage) versus(base, side *side, x int) { s.pairs = append(s.pairs, pair{base, side, x}) }

// measure lets them take turns and puts the results into the report.
func (s *stage) measure(about section, c course) error {
	var err error
	if about.Results, err = c.run(s.pairs); err != nil {
		return err
	}
	s.report.Sections = append(s.report.Sections, about)
	s.pairs = nil
	return nil
}
