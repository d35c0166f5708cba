package policy

import (
	"errors"
	"fmt"
)

var (
	// ErrConflict is matched where somebody else changed what was to be changed.
	ErrConflict = errors.New("somebody else was faster")
	// ErrNoVersion is matched where a version is not there.
	ErrNoVersion = errors.New("there is no such version")
	// ErrNotRead is matched where a version is there and cannot be read.
	ErrNotRead = errors.New("it cannot be read")
	// ErrPresent is matched where a node is there that was to be forgotten.
	ErrPresent = errors.New("the node is there: it would report again")
	// ErrTooLarge is matched where a policy is larger than a key may be.
	ErrTooLarge = errors.New("the policy is too large for the cluster")
	// ErrDamaged is matched where the file of the last good policy cannot be read.
	ErrDamaged = errors.New("the file of the last good policy is damaged")

	errTooMany = fmt.Errorf("more than %d elements: it is left out", MaxElements)
)

// badKey is what is wrong with a key.
type badKey struct {
	name string
	why  error
}

func (b *badKey) Error() string { return fmt.Sprintf("%.100s: %v", b.name, b.why) }

func (b *badKey) Unwrap() error { return b.why }
