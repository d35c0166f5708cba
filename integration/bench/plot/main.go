// Plot draws what integration/bench measured: an SVG for each section in which something grows.
//
//	go run -C integration/bench/plot . DIRECTORY
//
// reads DIRECTORY/results.json, from where it was started or by an absolute path, and writes beside it.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// section is what is read of one: see package bench.
type section struct {
	ID, Title, Axis string
	Results         []struct {
		Name string
		X    float64
		Cost struct{ Median, Low, High float64 } `json:"cost_ns"`
		Base struct{ Median float64 }            `json:"base_cost_ns"`
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: plot DIRECTORY")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal("plot: ", err)
	}
}

func run(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		return err
	}
	var all struct{ Sections []section }
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("results.json: %w", err)
	}
	for _, s := range all.Sections {
		if s.Axis == "" || len(s.Results) == 0 {
			continue
		}
		if err := s.draw(filepath.Join(dir, s.ID+".svg")); err != nil {
			return fmt.Errorf("%s: %w", s.ID, err)
		}
	}
	return nil
}

// draw draws a line for each contender, with its quartiles, and one for the bare cost.
func (s section) draw(file string) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.Title, s.Axis, "ns a frame"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left, p.Legend.TextStyle.Font.Size = true, true, vg.Points(10)
	p.Add(plotter.NewGrid())
	var names []string
	lines := map[string]*line{}
	var bare line
	for _, r := range s.Results {
		if lines[r.Name] == nil {
			names, lines[r.Name] = append(names, r.Name), &line{}
		}
		l := lines[r.Name]
		l.XYs = append(l.XYs, plotter.XY{X: r.X, Y: r.Cost.Median})
		l.YErrors = append(l.YErrors, struct{ Low, High float64 }{r.Cost.Median - r.Cost.Low, r.Cost.High - r.Cost.Median})
		bare.XYs = append(bare.XYs, plotter.XY{X: r.X, Y: r.Base.Median})
	}
	for i, name := range names {
		curve, points, err := plotter.NewLinePoints(lines[name])
		if err != nil {
			return err
		}
		curve.Color, points.Color, points.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
		p.Add(curve, points)
		p.Legend.Add(name, curve, points)
		bars, err := plotter.NewYErrorBars(lines[name])
		if err != nil {
			return err
		}
		bars.Color = plotutil.Color(i)
		p.Add(bars)
	}
	points, err := plotter.NewScatter(bare.XYs)
	if err != nil {
		return err
	}
	points.Shape, points.Radius = draw.CrossGlyph{}, vg.Points(3)
	p.Add(points)
	p.Legend.Add("what it is compared with", points)
	p.Y.Min, p.Y.Max = p.Y.Min*0.8, p.Y.Max*3 // room for the legend
	return p.Save(18*vg.Centimeter, 12*vg.Centimeter, file)
}

// line is a contender's.
type line struct {
	plotter.XYs
	plotter.YErrors
}
