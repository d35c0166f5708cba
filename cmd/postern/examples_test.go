package main

import (
	"bytes"
	"path/filepath"
	"testing"
)

// TestExamples: what people start from is sound, warns of nothing and passes
// its own tests.
func TestExamples(t *testing.T) {
	names, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(names) < 4 {
		t.Fatalf("%d examples, %v", len(names), err)
	}
	for _, command := range []string{"check", "test"} {
		for _, name := range names {
			var out, errs bytes.Buffer
			if code := run([]string{command, name}, nil, &out, &errs); code != 0 || errs.Len() > 0 || bytes.Contains(out.Bytes(), []byte("warning")) {
				t.Errorf("%s: exit code %d\n%s%s", command, code, out.String(), errs.String())
			}
		}
	}
}
