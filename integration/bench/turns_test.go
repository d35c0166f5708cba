package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		want    spread
	}{
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{3, 1, 2}, spread{2, 1.5, 2.5}},
		{[]float64{5, 1, 2, 3, 4}, spread{3, 2, 4}},
		{[]float64{1, 2, 3, 4}, spread{2.5, 1.75, 3.25}},
	} {
		if got := spreadOf(c.samples); got != c.want {
			t.Errorf("%v: %v, want %v", c.samples, got, c.want)
		}
	}
}

// TestCourse: the ratio is of turns that followed each other, so a machine that slows down all
// the time changes the costs and not the ratio; and neither is always first.
func TestCourse(t *testing.T) {
	var order string
	slow := 1.0
	run := func(name string, cost float64) *side {
		return &side{name: name, run: func(n int) (time.Duration, error) {
			order += name
			slow *= 1.01
			return time.Duration(float64(n) * cost * slow), nil
		}}
	}
	got, err := course{time.Millisecond, 100}.run([]pair{{run("a", 100), run("b", 300), 7}})
	if err != nil {
		t.Fatal(err)
	}
	r := got[0]
	if r.Name != "b" || r.Base != "a" || r.X != 7 || r.Turns != 100 {
		t.Errorf("%+v", r)
	}
	if r.Ratio.Low < 2.9 || r.Ratio.High > 3.1 || r.Cost.High < 2*r.Cost.Low {
		t.Errorf("%+v", r)
	}
	if !strings.HasSuffix(order, "abbabaab") {
		t.Errorf("the last turns were %s", order[len(order)-8:])
	}
}

func TestCourseFails(t *testing.T) {
	cause := errors.New("no")
	bad := &side{name: "bad", run: func(n int) (time.Duration, error) { return time.Second, cause }}
	good := &side{name: "good", run: func(n int) (time.Duration, error) { return time.Second, nil }}
	if _, err := (course{time.Millisecond, 1}).run([]pair{{good, bad, 0}}); !errors.Is(err, cause) {
		t.Error(err)
	}
}
