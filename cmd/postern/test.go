package main

import (
	"bytes"
	"fmt"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/spf13/cobra"
)

func newTest(t *term) *cobra.Command {
	var asJSON bool
	var door door
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run the tests that policies hold",
		Long: `test judges the frames under a policy's key "tests" and compares verdict and rule
with what is expected. Each test meets the policy fresh, its limits unused.

Exit code 0 if all tests passed, 1 if not.`,
		Example:           "  postern test policy.yaml\n  postern test examples/*.yaml",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completePolicies,
		RunE: func(_ *cobra.Command, files []string) error {
			if err := door.parse(); err != nil {
				return err
			}
			passed := true
			for _, name := range files {
				ok, err := testPolicy(t, name, &door, asJSON)
				if err != nil && err != answerNo {
					return err
				}
				passed = passed && ok
			}
			if !passed {
				return answerNo
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object a test")
	door.flags(cmd)
	return cmd
}

// outcome is a test's in JSON.
type outcome struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Test     string   `json:"test"`
	Passed   bool     `json:"passed"`
	Expected string   `json:"expected"`
	Got      decision `json:"got"`
}

func testPolicy(t *term, name string, door *door, asJSON bool) (passed bool, err error) {
	policy, fw, err := mustPolicy(t, name)
	if err != nil {
		return false, err
	}
	var out bytes.Buffer
	enc, failed := newJSON(&out), 0
	for i := range policy.Tests {
		test := &policy.Tests[i]
		if i > 0 && limited(policy) {
			if fw, err = firewall.New(policy); err != nil {
				return false, err
			}
		}
		var p filter.Packet
		p.Decode(test.Frame, testMeta(test, door))
		d := fw.Classify(&p)
		ok := test.Expect == d.Verdict && (test.Rule == "" || test.Rule == d.RuleName()) &&
			(test.ExpectIface == "" || d.Rule != nil && d.Rule.Iface == test.ExpectIface)
		if !ok {
			failed++
		}
		if asJSON {
			o := outcome{name, test.Line, test.Name, ok, expected(test), *newDecision(&d)}
			o.Got.Summary = p.Summary()
			if err := enc.Encode(o); err != nil {
				return false, err
			}
			continue
		}
		word := t.paint.in(green, "ok  ")
		if !ok {
			word = t.paint.in(red, "FAIL")
		}
		fmt.Fprintf(&out, "%s  %s:%d: %s\n", word, name, test.Line, test.Name)
		if !ok {
			fmt.Fprintf(&out, "        got %s by %s, want %s\n        %s\n", d.Verdict, because(&d), expected(test), p.Summary())
		}
	}
	if !asJSON {
		fmt.Fprintf(&out, "%s: %s, %d failed\n", name, count(len(policy.Tests), "test"), failed)
	}
	_, err = out.WriteTo(t.out)
	return failed == 0, ioError(err)
}

// testMeta is what the test says, and else the flags. The clock stands still, so
// that tests say the same every time.
func testMeta(test *firewall.Test, d *door) *filter.Meta {
	m := &filter.Meta{Time: 1, Iface: test.Iface, IfaceMAC: test.IfaceMAC, HasIfaceMAC: test.HasIfaceMAC, Mark: test.Mark, Ingress: test.Ingress}
	if m.Iface == "" {
		m.Iface = d.name
	}
	if !m.HasIfaceMAC {
		m.IfaceMAC, m.HasIfaceMAC = d.hw, d.mac != ""
	}
	return m
}

// limited reports whether a frame can change the next one's verdict.
func limited(p *firewall.Policy) bool {
	for _, r := range p.Rules {
		if r.Limit != nil {
			return true
		}
	}
	return false
}

func expected(test *firewall.Test) string {
	s := test.Expect.String()
	if test.ExpectIface != "" {
		s += " to " + test.ExpectIface
	}
	if test.Rule != "" {
		s += " by " + test.Rule
	}
	return s
}
