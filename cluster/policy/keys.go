package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The names of the keys, below the prefix.
const (
	PoliciesKey = "cluster/policies/"
	OutcomesKey = "cluster/outcomes/"
	ReportsKey  = "cluster/reports/"
	RolloutKey  = "cluster/rollout"
	DriverKey   = "cluster/rollout/driver"
	SetsKey     = "cluster/sets/"
	NodesKey    = "nodes/"

	// What a node follows, and no texts: from the first key to the one before the second.
	FollowFrom = ReportsKey
	FollowTo   = "nodes0" // '0' comes after '/'
)

const (
	// MaxValue bounds a value: etcd takes requests of 1.5 MiB.
	MaxValue = 1 << 20
	// maxSmall bounds what is not a policy's text.
	maxSmall = 64 << 10
	// MaxElements bounds the elements of all sets.
	MaxElements = 100_000
	// Kept is how many versions stay.
	Kept = 64
)

// Key is one that was read. Name is without the prefix.
type Key struct {
	Name     string
	Value    []byte
	Deleted  bool
	Lease    int64
	Revision int64
}

// Numbered is the key of a version below one of the two that have versions.
func Numbered(under string, n uint64) string { return fmt.Sprintf("%s%010d", under, n) }

// ParseNumbered is its inverse.
func ParseNumbered(under, name string) (n uint64, ok bool) {
	text, is := strings.CutPrefix(name, under)
	n, err := strconv.ParseUint(text, 10, 64)
	return n, is && err == nil && n > 0 && Numbered(under, n) == name
}

// strict reads JSON of which every key is known, and which is not longer than limit.
func strict(value []byte, limit int, into any) error {
	switch {
	case len(value) > limit:
		return fmt.Errorf("%d bytes are more than %d", len(value), limit)
	case !utf8.Valid(value):
		return errors.New("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something comes after it")
	}
	return nil
}

// line checks what will be shown to somebody: no control characters, and not endless.
func line(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s is longer than %d bytes", what, limit)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
		return fmt.Errorf("%s has characters that cannot be shown: %.40q", what, s)
	}
	return nil
}

// nodeName checks a node's name, by the rules of its configuration.
func nodeName(s string) error {
	if s == "" || len(s) > 64 || strings.ContainsAny(s, "/ \t\n") {
		return fmt.Errorf("bad node name %.70q", s)
	}
	return line("the node's name", s, 64)
}

// Element is an element of a set, for all nodes.
type Element struct {
	Set   string   `json:"set"`
	Parts []string `json:"element"`
	// Lease ends it, if it is not 0.
	Lease int64 `json:"-"`
}

// Key is where it stands.
func (e Element) Key() string {
	parts := make([]string, len(e.Parts))
	for i, p := range e.Parts {
		parts[i] = url.QueryEscape(p)
	}
	return SetsKey + url.QueryEscape(e.Set) + "/" + strings.Join(parts, ",")
}

// String is the element as it is written on a command line.
func (e Element) String() string { return strings.Join(e.Parts, ",") }

// ParseElement reads a key below SetsKey. The value says nothing.
func ParseElement(k Key) (e Element, err error) {
	name, is := strings.CutPrefix(k.Name, SetsKey)
	set, rest, two := strings.Cut(name, "/")
	if !is || !two || len(name) > 1024 || len(k.Value) > maxSmall {
		return e, errors.New("this is no element of a set")
	}
	e.Lease = k.Lease
	if e.Set, err = url.QueryUnescape(set); err != nil {
		return e, err
	}
	for _, p := range strings.Split(rest, ",") {
		part, err := url.QueryUnescape(p)
		if err != nil {
			return e, err
		}
		if err := line("the element", part, 512); err != nil {
			return e, err
		}
		e.Parts = append(e.Parts, part)
	}
	if err := line("the set's name", e.Set, 128); err != nil {
		return e, err
	}
	if e.Set == "" || len(e.Parts) > 4 || e.Key() != k.Name {
		return e, errors.New("this is no element of a set")
	}
	return e, nil
}
