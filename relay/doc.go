// Package relay is a DHCPv4 relay agent (RFC 1542, RFC 2131, RFC 3046) at the edge of a
// network, and the same as a listener on a bridge's ports (DHCP snooping, RFC 7513). What it
// learns of who holds which address it keeps on disk, and in a set of the firewall in force.
//
// The way of a client's message: a packet socket of its interface (wire), checks against
// the interface's configuration, a request noted (binding), option 82 (message), the UDP
// socket to the servers. The way of an answer: the UDP socket, the circuit that option 82
// names, the request it answers, and out by a guarded packet socket (afpacket). An ACK waits
// in between until its binding is on disk and in the firewall (ledger).
//
// It refuses to know what is in servers' pools, who may have which address, and how
// frames are refused: that is the servers' business, and the firewall's.
package relay
