//go:build race

package clusterpolicy

const raceEnabled = true
