package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// expression is one line of a file of expressions.
type expression struct {
	ours   string
	theirs string // for tshark, where it differs: sets and what is ours beyond Wireshark
	parsed filter.Expr
}

// readExpressions reads testdata/*.txt: an expression a line, "#" for comments.
// Behind a tab stands what says the same to tshark.
func readExpressions(t testing.TB) (all []expression) {
	t.Helper()
	for _, name := range []string{"expressions.txt", "fields.txt"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			ours, theirs, ok := strings.Cut(line, "\t")
			if !ok {
				theirs = ours
			}
			x, err := filter.Parse(ours, setTypes)
			if err != nil {
				t.Fatalf("%s:%d: %s: %v", name, i+1, ours, err)
			}
			all = append(all, expression{ours, theirs, x})
		}
	}
	return all
}

// refs calls f for every field that x refers to, with the node that does.
func refs(x filter.Expr, f func(filter.Ref, filter.Expr)) {
	switch x := x.(type) {
	case *filter.And:
		for _, x := range x.X {
			refs(x, f)
		}
	case *filter.Or:
		for _, x := range x.X {
			refs(x, f)
		}
	case *filter.Not:
		refs(x.X, f)
	case *filter.Present:
		f(x.Field, x)
	case *filter.Test:
		f(x.Field, x)
	case *filter.Compare:
		f(x.Field, x)
		if x.Other != nil {
			f(*x.Other, x)
		}
	case *filter.In:
		for _, r := range x.Fields {
			f(r, x)
		}
	}
}

// operator names what a node does with a field.
func operator(r filter.Ref, x filter.Expr) string {
	switch x := x.(type) {
	case *filter.Test:
		return "&"
	case *filter.Compare:
		switch {
		case r.Mask != 0:
			return "& " + x.Op.String()
		case x.Other == nil && x.Const.Prefix != filter.Full:
			return x.Op.String() + " prefix"
		}
		return x.Op.String()
	case *filter.In:
		return "in"
	}
	return "present"
}

// wanted are the operators that every field of a type must be tested with, by
// itself or by its slices.
func wanted(f *filter.Field) []string {
	all := []string{"present"}
	ordered := append(all, "==", "!=", "<", "<=", ">", ">=", "in")
	switch f.Type {
	case filter.TypeNone, filter.TypeProtocol:
		return all
	case filter.TypeUint, filter.TypeMAC:
		return append(ordered, "&", "& ==", "& !=")
	case filter.TypeIPv4:
		return append(ordered, "&", "& ==", "== prefix", "!= prefix")
	case filter.TypeIPv6:
		return append(ordered, "== prefix", "!= prefix")
	}
	return ordered
}

// TestCoverage holds that the expressions cover every field of the catalogue
// that Wireshark has, with every operator its type has.
func TestCoverage(t *testing.T) {
	seen := map[string]bool{}
	n := 0
	for _, e := range readExpressions(t) {
		n++
		refs(e.parsed, func(r filter.Ref, x filter.Expr) {
			seen[r.Field.Name+" "+operator(r, x)] = true
		})
	}
	if n < 200 {
		t.Errorf("only %d expressions", n)
	}
	for _, f := range filter.Fields() {
		if ourOwn(f.Name) {
			continue
		}
		for _, op := range wanted(f) {
			if !seen[f.Name+" "+op] {
				t.Errorf("no expression has %s with %q", f.Name, op)
			}
		}
	}
}

// ourOwn tells the fields that Wireshark does not have.
func ourOwn(name string) bool {
	return strings.HasPrefix(name, "sender.") || strings.HasPrefix(name, "iface.") || strings.HasSuffix(name, ".malformed")
}
