//go:build fence && race

package fence

const raceEnabled = true
