package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Version is a policy, as it was put. It never changes.
type Version struct {
	Number uint64 `json:"version"`
	// Author and Time say who put it, and when by that machine's clock.
	Author  string    `json:"author"`
	Time    time.Time `json:"time"`
	Comment string    `json:"comment,omitempty"`
	// From is the version whose text this is again.
	From uint64 `json:"from,omitempty"`
	// Name is that of the policy, Text its file.
	Name string `json:"name"`
	Text string `json:"text"`
}

// ID is what tells a version from any other, also where etcd was restored and counts anew.
type ID struct {
	Number uint64 `json:"version"`
	Digest string `json:"digest,omitempty"`
}

// ID is the version's.
func (v *Version) ID() ID {
	sum := sha256.Sum256([]byte(v.Text))
	return ID{v.Number, hex.EncodeToString(sum[:])}
}

func (id ID) check() error {
	if b, err := hex.DecodeString(id.Digest); (id.Number == 0) != (id.Digest == "") || err != nil || len(b) != 0 && len(b) != sha256.Size {
		return fmt.Errorf("bad digest %.70q of version %d", id.Digest, id.Number)
	}
	return nil
}

// Encode is the value of a version's key.
func (v *Version) Encode() ([]byte, error) {
	b, err := json.Marshal(v)
	if err == nil && len(b) > MaxValue {
		err = fmt.Errorf("%w: %d bytes, at most %d; put large lists into sets (postern cluster set add)", ErrTooLarge, len(b), MaxValue)
	}
	return b, err
}

// ParseVersion reads the value of the key of version n.
func ParseVersion(n uint64, value []byte) (*Version, error) {
	v := &Version{}
	err := strict(value, MaxValue, v)
	switch {
	case err != nil:
	case v.Number != n:
		err = fmt.Errorf("it says that it is version %d", v.Number)
	case v.Text == "":
		err = errors.New("it has no text")
	case v.From >= n:
		err = fmt.Errorf("it cannot be made from version %d", v.From)
	default:
		err = errors.Join(line("author", v.Author, 256), line("comment", v.Comment, 1024), line("name", v.Name, 256))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", Numbered(PoliciesKey, n), ErrNotRead, err)
	}
	return v, nil
}

// Outcome is what came of rolling out a version.
type Outcome struct {
	Version uint64    `json:"version"`
	Done    bool      `json:"done"`
	First   string    `json:"first,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Time    time.Time `json:"time"`
}

// ParseOutcome reads the value of the key of version n's outcome.
func ParseOutcome(n uint64, value []byte) (*Outcome, error) {
	o := &Outcome{}
	err := strict(value, maxSmall, o)
	if err == nil && o.Version != n {
		err = fmt.Errorf("it says that it is of version %d", o.Version)
	}
	if err == nil {
		err = errors.Join(line("first", o.First, 64), line("cause", o.Cause, maxCause))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Numbered(OutcomesKey, n), err)
	}
	return o, nil
}
