// Package steadfast holds that what is enforced stays enforced: while policies take each
// other's place under full-rate sending, and while the processes that put them in force
// are killed at random moments, no forged frame gets out and no honest one is lost. It
// has tests only.
package steadfast
