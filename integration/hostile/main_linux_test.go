package hostile

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets more tests run at a time than there are processors: the programs wait
// more than they work.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err) // package testing has it
	}
	os.Exit(m.Run())
}
