// Package i386 makes, for tests, system calls as a program for i386 does, which any 64-bit
// program can do as well where the kernel has them. What a call means is not known here.
package i386
