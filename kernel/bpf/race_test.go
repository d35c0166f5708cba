//go:build race

package bpf

// defaultPairs is how many pairs of policy and frame TestAgreement compares: the race detector
// makes Classify slow, and finds nothing in instructions.
const defaultPairs = 20_000
