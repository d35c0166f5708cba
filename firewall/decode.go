package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/firewall/filter"
)

// MaxPolicyBytes bounds a policy file.
const MaxPolicyBytes = 64 << 20

// maxFindings bounds how many mistakes are reported of one file.
const maxFindings = 50

// decoder reads the YAML nodes of a policy file and collects what is wrong.
type decoder struct {
	file  string
	lines []string
	diags Diagnostics
	types filter.SetTypes
}

// report adds a finding at a place; line and col are counted from 1.
func (d *decoder) report(line, col, n int, msg, hint string) {
	if len(d.diags) >= maxFindings {
		return
	}
	f := Diagnostic{File: d.file, Line: line, Col: col, Len: n, Msg: msg, Hint: hint}
	if line > 0 && line <= len(d.lines) {
		f.Source = d.lines[line-1]
	}
	d.diags = append(d.diags, f)
}

// errorf adds a finding about a node.
func (d *decoder) errorf(n *yaml.Node, hint, format string, args ...any) {
	d.report(n.Line, n.Column, nodeLen(n), fmt.Sprintf(format, args...), hint)
}

func nodeLen(n *yaml.Node) int {
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return 1
	}
	l := runes(n.Value)
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		l += 2
	}
	return l
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)`)

// parse turns the file's bytes into its one document.
func (d *decoder) parse(src []byte) *yaml.Node {
	switch {
	case len(src) > MaxPolicyBytes:
		d.report(0, 0, 0, fmt.Sprintf("the policy is larger than %d MiB", MaxPolicyBytes>>20), "put large lists into sets that are filled while it runs")
		return nil
	case len(bytes.TrimSpace(src)) == 0:
		d.report(0, 0, 0, "the policy file is empty", "write at least `policy: NAME`; all that no rule accepts is dropped")
		return nil
	case bytes.IndexByte(src, 0) >= 0 || !utf8.Valid(src):
		d.report(0, 0, 0, "this is not a text file", "a policy is YAML in UTF-8; is this a capture? `postern replay -f POLICY CAPTURE`")
		return nil
	}
	d.lines = strings.Split(string(src), "\n")
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(src))
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) { // EOF: nothing but comments
		d.syntax(err)
		return nil
	}
	if err := dec.Decode(new(yaml.Node)); len(doc.Content) > 0 && !errors.Is(err, io.EOF) {
		d.report(0, 0, 0, "more than one YAML document in the file", "one policy, one file: remove the `---`")
		return nil
	}
	if len(doc.Content) == 0 {
		d.report(0, 0, 0, "the policy file is empty", "write at least `policy: NAME`; all that no rule accepts is dropped")
		return nil
	}
	return doc.Content[0]
}

func (d *decoder) syntax(err error) {
	msg, line, col := strings.TrimPrefix(err.Error(), "yaml: "), 0, 0
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg, col = m[2], 1
	}
	hint := "quote values that hold `: `, `#`, `@`, `*`, `&` or `!` at their start"
	d.report(line, col, 1, "not YAML: "+msg, hint)
}

// fields hands each value of a mapping to its key's function. Unknown and
// repeated keys are mistakes.
func (d *decoder) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n, "write `key: value` pairs: "+keys(known), "%s must be a mapping, not %s", what, kindOf(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		fn := known[k.Value]
		switch {
		case fn == nil:
			d.errorf(k, didYouMean(k.Value, known), "unknown key %q in %s", k.Value, what)
		case seen[k.Value]:
			d.errorf(k, "keep one of them", "key %q stands twice in %s", k.Value, what)
		case v.Kind == yaml.AliasNode || v.Anchor != "":
			d.errorf(v, "write the value out", "YAML anchors and aliases are not part of a policy")
		default:
			fn(v)
		}
		seen[k.Value] = true
	}
}

// each hands the items of a list to fn.
func (d *decoder) each(n *yaml.Node, what string, fn func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		d.errorf(n, "write a list: `[a, b]`, or one item a line behind `- `", "%s must be a list, not %s", what, kindOf(n))
		return
	}
	for _, v := range n.Content {
		if v.Kind == yaml.AliasNode || v.Anchor != "" {
			d.errorf(v, "write the value out", "YAML anchors and aliases are not part of a policy")
			continue
		}
		fn(v)
	}
}

// text reads a scalar.
func (d *decoder) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.errorf(n, "", "%s must be a single value, not %s", what, kindOf(n))
		return "", false
	}
	return n.Value, true
}

// oneOf reads a scalar that must be one of a few words.
func (d *decoder) oneOf(n *yaml.Node, what string, words ...string) string {
	s, ok := d.text(n, what)
	if !ok {
		return ""
	}
	for _, w := range words {
		if s == w {
			return s
		}
	}
	d.errorf(n, "write one of: "+strings.Join(words, ", "), "%s cannot be %q", what, s)
	return ""
}

func (d *decoder) boolean(n *yaml.Node, what string) bool {
	return d.oneOf(n, what, "true", "false") == "true"
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

func keys(known map[string]func(*yaml.Node)) string {
	var k []string
	for name := range known {
		k = append(k, name)
	}
	sort.Strings(k)
	return strings.Join(k, ", ")
}

// didYouMean suggests the nearest key, or lists them all.
func didYouMean(word string, known map[string]func(*yaml.Node)) string {
	best, dist := "", 3
	for k := range known {
		if n := levenshtein.ComputeDistance(word, k); n < dist || n == dist && k < best {
			best, dist = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known keys: " + keys(known)
}
