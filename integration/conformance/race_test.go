//go:build race

package conformance

// The comparison has one goroutine and takes three times as long under the race
// detector, which has nothing to find in it.
const race = true
