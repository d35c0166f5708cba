//go:build race

package steadfast

const raceEnabled = true
