// Package labtest is what tests in package lab's namespaces have in common: other
// people's programs that run there, and what is asked of the machine. It knows no policy
// and no guard.
package labtest
