// Package rows shows, on real devices and with other people's netfilter and tc beside ours, what a
// frame meets on its way: which layer is asked first, which again, and which not; and
// policies of examples/ where they are meant to be. It has tests only.
package rows
