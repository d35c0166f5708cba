// Package conformance holds the match language against Wireshark: what matches
// an expression here matches it there, on every frame of the corpus. It has
// tests alone.
package conformance
