// Package wire is a relay agent's sockets: packet sockets that read DHCP on an interface,
// in batches and with its VLAN tags, and the UDP socket towards the servers. It knows where
// DHCP stands in a frame, and nothing of what it says.
//
// What is sent to clients does not go through here, but through afpacket's guarded sockets.
package wire
