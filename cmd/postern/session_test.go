package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the sessions of testdata give instead of comparing")

// TestSessions runs the sessions under testdata: lines that begin with "$ " are
// commands, the rest is what they must give. Lines from standard error begin
// with "! ", and an exit code other than 0 stands in brackets. The sessions run
// in a directory that holds testdata's policies and the captures of fixtures.
func TestSessions(t *testing.T) {
	sessions(t, "testdata/*.session", func(*testing.T) stage { return stage{} })
}

// stage is what commands find around them, where that is not this machine.
type stage struct {
	// set puts it around a command; nil leaves the machine as it is.
	set func(*term)
	// given changes it to something that has a name, for lines "$ given NAME".
	given func(name string)
}

func sessions(t *testing.T, pattern string, newStage func(*testing.T) stage) {
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no sessions: %v", err)
	}
	source, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".session"), func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(fixtures(t, source))
			got := session(t, string(want), newStage(t))
			if *update {
				if err := os.WriteFile(filepath.Join(source, name), []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("differs (go test -update writes it anew):\n%s", firstDifference(got, string(want)))
			}
		})
	}
}

// session runs the commands in text, and gives text with their output.
func session(t *testing.T, text string, st stage) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ ")
		switch {
		case ok:
			fmt.Fprintf(&b, "$ %s\n", command)
			transcript(t, &b, command, st)
		case strings.HasPrefix(line, "#"):
			b.WriteString(line)
		}
	}
	return b.String()
}

func transcript(t *testing.T, b *strings.Builder, command string, st stage) {
	args, stdin := words(t, command)
	if args[0] == "given" {
		st.given(args[1])
		return
	}
	if args[0] == "cat" {
		file, err := os.ReadFile(args[1])
		if err != nil {
			t.Fatal(err)
		}
		b.Write(file)
		return
	}
	var in []byte
	if stdin != "" {
		var err error
		if in, err = os.ReadFile(stdin); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	term := newTerm(bytes.NewReader(in), &out, &errs)
	if st.set != nil {
		st.set(term)
	}
	code := term.run(t.Context(), args[1:])
	b.Write(out.Bytes())
	if n := out.Len(); n > 0 && out.Bytes()[n-1] != '\n' {
		t.Errorf("%s: output does not end its line", command)
	}
	for line := range strings.Lines(errs.String()) {
		b.WriteString("! " + line)
	}
	if code != 0 {
		fmt.Fprintf(b, "[%d]\n", code)
	}
}

// words splits a command as a shell does: at spaces, but not between single
// quotes; `< FILE` is its standard input.
func words(t *testing.T, command string) (args []string, stdin string) {
	for i, part := range strings.Split(command, "'") {
		if i%2 == 1 {
			args = append(args, part)
			continue
		}
		args = append(args, strings.Fields(part)...)
	}
	if n := len(args); n > 2 && args[n-2] == "<" {
		args, stdin = args[:n-2], args[n-1]
	}
	if len(args) < 2 || !slices.Contains([]string{"postern", "cat", "given"}, args[0]) {
		t.Fatalf("not a command of ours: %s", command)
	}
	return args, stdin
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := 0; i < len(g) || i < len(w); i++ {
		a, b := "(end)", "(end)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, a, b)
		}
	}
	return ""
}
