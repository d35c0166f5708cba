// Package relay holds `postern relay` against other people's DHCP servers, clients and
// attackers, in network namespaces: a server's network, the agent, and clients' segments
// behind it. It is all tests.
package relay
