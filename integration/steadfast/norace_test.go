//go:build !race

package steadfast

const raceEnabled = false
