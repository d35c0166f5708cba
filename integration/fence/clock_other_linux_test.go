//go:build !amd64

package fence

// shim is for amd64, whose registers it knows.
func shim(string, []string) int { return 125 }
