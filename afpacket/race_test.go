//go:build race

package afpacket

// raceEnabled: sync.Pool forgets things at random under the race detector.
const raceEnabled = true
