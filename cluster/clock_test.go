package cluster

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestClock: the host's clock can be stepped. CLOCK_REALTIME is read for people alone, who see it in a
// Holder or a log, and for a certificate's end; all that is decided is by CLOCK_BOOTTIME.
func TestClock(t *testing.T) {
	allowed := map[string]int{
		"agent.go":         0,
		"reconcile.go":     1, // since, for people
		"standalone.go":    1, // Holder.Since
		"etcd/election.go": 2, // Holder.Since
		"etcd/client.go":   1, // a certificate's end
		"etcd/diagnose.go": 3, // how often a server is asked, a socket's deadline
		"etcd/put.go":      1, // Rollout.Since, for people
		"policy/node.go":   2, // Report.Since, for people
		"policy/tell.go":   2, // Report.Time and Rollout.Since, for people
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"etcd", "fence", "policy"} {
		more, _ := filepath.Glob(dir + "/*.go")
		files = append(files, more...)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		uses := 0
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && (s.Sel.Name == "Now" || s.Sel.Name == "Since" || s.Sel.Name == "Until") {
					uses++
				}
				if s.Sel.Name == "CLOCK_REALTIME" {
					uses += 100
				}
			}
			return true
		})
		if uses > allowed[name] {
			t.Errorf("%s asks for the host's clock %d times, %d are known to decide nothing", name, uses, allowed[name])
		}
	}
}
