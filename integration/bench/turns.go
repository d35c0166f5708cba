package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// side is one contender. Run does the work n times and says how long that took.
type side struct {
	name string
	run  func(n int) (time.Duration, error)
	note string // for the report

	n int // runs a turn
}

// pair is a side and what it is compared with, in the same run.
type pair struct {
	base, side *side
	x          int // what grows from pair to pair, such as the number of rules
}

// result is what came of a pair: medians, and between them half of all turns.
type result struct {
	// Name is the side's, Base that of what it was compared with.
	Name string `json:"name"`
	Base string `json:"base"`
	X    int    `json:"x,omitempty"`
	// Cost and BaseCost are nanoseconds each time.
	Cost     spread `json:"cost_ns"`
	BaseCost spread `json:"base_cost_ns"`
	// Ratio is of turns that followed each other: what disturbs the machine disturbs both.
	Ratio spread `json:"ratio"`
	Turns int    `json:"turns"`
	Note  string `json:"note,omitempty"`
}

// spread is a median, and the quartiles on either side.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// spreadOf sorts the samples.
func spreadOf(samples []float64) spread {
	slices.Sort(samples)
	return spread{quantile(samples, 0.5), quantile(samples, 0.25), quantile(samples, 0.75)}
}

// quantile of sorted samples, between the two next to it.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// course is how long each side runs in a turn, about half of it before and half after the other, and how many
// turns each pair gets.
type course struct {
	turn  time.Duration
	turns int
}

// run lets the pairs take turns. A turn is base, side, side, base, or the other way round: what changes
// steadily meanwhile, such as the CPU's clock, is the same for both.
func (c course) run(pairs []pair) ([]result, error) {
	for _, p := range pairs {
		for _, s := range []*side{p.base, p.side} {
			if err := c.pace(s); err != nil {
				return nil, err
			}
		}
	}
	costs, bases, ratios := make([][]float64, len(pairs)), make([][]float64, len(pairs)), make([][]float64, len(pairs))
	for turn := range c.turns {
		for i, p := range pairs {
			base, cost, err := p.take(turn%2 == 1)
			if err != nil {
				return nil, err
			}
			costs[i], bases[i], ratios[i] = append(costs[i], cost), append(bases[i], base), append(ratios[i], cost/base)
		}
	}
	out := make([]result, len(pairs))
	for i, p := range pairs {
		out[i] = result{p.side.name, p.base.name, p.x, spreadOf(costs[i]), spreadOf(bases[i]), spreadOf(ratios[i]), c.turns, p.side.note}
	}
	return out, nil
}

// take is one turn: nanoseconds each time, for base and side.
func (p pair) take(swap bool) (base, cost float64, err error) {
	var each [2]float64
	for i := range 4 {
		which := (i + 1) / 2 % 2 // base, side, side, base
		if swap {
			which = 1 - which
		}
		s := [2]*side{p.base, p.side}[which]
		took, err := s.run(s.n)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", s.name, err)
		}
		each[which] += float64(took.Nanoseconds()) / float64(2*s.n)
	}
	return each[0], each[1], nil
}

// pace finds how often a side can run in one turn, which warms it up too.
func (c course) pace(s *side) error {
	for s.n = max(1, s.n); ; s.n *= 2 {
		took, err := s.run(s.n)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if took >= c.turn/4 || s.n >= 1<<24 {
			s.n = max(1, int(float64(s.n)*float64(c.turn)/2/float64(max(1, took))))
			return nil
		}
	}
}
