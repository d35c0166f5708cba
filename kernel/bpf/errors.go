package bpf

import "errors"

var (
	// ErrNotSupported is matched by errors that name what a policy asks for and
	// this engine, or this kernel, cannot do.
	ErrNotSupported = errors.New("not supported by the kernel engine")
	// ErrNoSet is matched where the policy in force has no such set.
	ErrNoSet = errors.New("the policy in force has no set")
	// ErrTooLarge is matched by errors that name the limit a policy exceeds.
	ErrTooLarge = errors.New("too large for the kernel engine")
)
