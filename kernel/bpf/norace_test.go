//go:build !race

package bpf

// defaultPairs is how many pairs of policy and frame TestAgreement compares.
const defaultPairs = 1_000_000
