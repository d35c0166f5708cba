package conformance

import (
	"os"
	"slices"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// setTypes and sets are the named sets that the expressions use.
var setTypes = filter.SetTypes{
	"vips":   {filter.TypeIPv4},
	"leases": {filter.TypeMAC, filter.TypeIPv4},
}

// keys is a set of keys of at most two numbers.
type keys map[[2]uint64]bool

func (s keys) Contains(key []filter.Value) bool {
	var k [2]uint64
	for i := range key {
		k[i] = key[i].Num
	}
	return s[k]
}

var sets = filter.Sets{
	"vips":   keys{{0xc0a80168}: true, {0xc0a80101}: true, {0x0a000101}: true},
	"leases": keys{{0x001f29da2d79, 0xc0a80168}: true, {0x00aabbccdd01, 0x0a000101}: true},
}

// TestConformance holds every expression against tshark, on every frame.
func TestConformance(t *testing.T) {
	if race {
		t.Skip("runs without the race detector")
	}
	frames := append(readCorpus(t), made(t)...)
	all := readExpressions(t)
	filters := make([]string, len(all))
	for i, e := range all {
		filters[i] = e.theirs
	}
	theirs := matchAll(t, frames, filters)
	compare(t, frames, all, theirs)
	checkThatFieldsMatch(t, all, theirs)
	checkOneByOne(t, frames, all, theirs)
}

// checkOneByOne holds that it makes no difference to tshark that the captures
// are put together and the filters are taps: a sample of the captures by
// themselves, all if POSTERN_CONFORMANCE=full, and of the filters by -Y. Slices
// from a protocol's end are left out: there tshark's answer for a frame depends on
// the frames before it.
func checkOneByOne(t *testing.T, frames []captured, all []expression, theirs []matches) {
	t.Helper()
	var filters []string
	var want []matches
	for n, e := range all {
		if !fromEnd(e.parsed) {
			filters, want = append(filters, e.theirs), append(want, theirs[n])
		}
	}
	step, file := 70, 0
	if os.Getenv("POSTERN_CONFORMANCE") == "full" {
		step = 1
	}
	for from := 0; from < len(frames); file++ {
		to := from + 1
		for to < len(frames) && frames[to].file == frames[from].file {
			to++
		}
		if file%step == 0 {
			for n, m := range matchAll(t, frames[from:to], filters) {
				if !slices.Equal(m, want[n][from:to]) {
					t.Errorf("%s: tshark gives something else for %s by itself", filters[n], frames[from].file)
				}
			}
		}
		from = to
	}
	for n := 0; n < len(filters); n += 400 {
		if !slices.Equal(matchOne(t, frames, filters[n]), want[n]) {
			t.Errorf("%s: tshark -Y gives something else than a tap", filters[n])
		}
	}
}

// compare holds what Eval says against what tshark said.
func compare(t *testing.T, frames []captured, all []expression, theirs []matches) {
	t.Helper()
	var p filter.Packet
	excused, wrong := map[string]int{}, make([]int, len(all))
	for i, f := range frames {
		p.Decode(f.bytes, &filter.Meta{WireLen: f.wire})
		for n, e := range all {
			ours := filter.Eval(e.parsed, &p, sets)
			if ours == theirs[n][i] {
				continue
			}
			if title := excuse(e.parsed, &p); title != "" {
				excused[title]++
			} else if wrong[n]++; wrong[n] <= 3 {
				t.Errorf("%s: %s#%d matches: %v here, %v in tshark", e.ours, f.file, f.number, ours, theirs[n][i])
			}
		}
	}
	for _, d := range differences {
		if excused[d.title] == 0 {
			t.Errorf("the difference %q is not needed", d.title)
		}
	}
	bad := len(all) - count(wrong, 0)
	t.Logf("%d expressions over %d frames, %d differ; excused, in pairs of an expression and a frame: %v", len(all), len(frames), bad, excused)
}

func count(s []int, want int) (n int) {
	for _, v := range s {
		if v == want {
			n++
		}
	}
	return n
}

// checkThatFieldsMatch keeps the comparison from agreeing on nothing: for every
// field some expression of it must match some frame.
func checkThatFieldsMatch(t *testing.T, all []expression, theirs []matches) {
	t.Helper()
	matched := map[string]bool{}
	for n, e := range all {
		if _, not := e.parsed.(*filter.Not); not || !slices.Contains(theirs[n], true) {
			continue
		}
		refs(e.parsed, func(r filter.Ref, _ filter.Expr) { matched[r.Field.Name] = true })
	}
	for _, f := range filter.Fields() {
		if !ourOwn(f.Name) && !matched[f.Name] {
			t.Errorf("no frame has %s", f.Name)
		}
	}
}
