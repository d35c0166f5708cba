// Package bpffs opens the directories in which the kernel keeps what outlives the
// process that pinned it, and tells them from directories that only look alike. It does
// not know what is pinned there.
package bpffs

import "errors"

// ErrNone is matched where a path is not in a bpffs.
var ErrNone = errors.New("not in a bpffs")
