// Package matrix holds the kernel's enforcement against every way of sending: each
// forged frame of package evasions, by each path and with each claimed protocol, must
// not get out, and its honest twin must arrive exactly once. It has tests only.
package matrix
