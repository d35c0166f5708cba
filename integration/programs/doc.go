// Package programs holds guarded sockets against programs that other people
// wrote and run: DHCP servers and clients, arping, and the Go libraries that
// agents are made of. It is all tests. Each frame that must be refused is sent
// once more by an unguarded socket, and there it must do its harm: else nothing
// would show that it was the guard that stopped it.
package programs
