// Package hostile holds the kernel's enforcement against programs that other people
// wrote: what they forge must not get out, and their honest use must go on unharmed. It
// is all tests. Each program runs unguarded first, and there what it forges must get out:
// else nothing would show that it was the guard that stopped it. Then it runs under a
// policy, until a rule has refused what it forges.
//
// How they send, as strace(1) shows it; "bound" is write(2), send(2) or sendto(2) without
// an address, and the last column is the protocol that the frame is said to have:
//
//	program       version  socket                                   call           protocol
//	arpspoof      2.4b1    packet, SOCK_RAW                         sendto         ETH_P_ALL
//	ettercap      0.8.3.1  packet, SOCK_RAW                         sendto         ETH_P_ALL
//	yersinia      0.8.2    packet, SOCK_RAW                         sendto         ETH_P_ALL
//	arping        20221126 packet, SOCK_DGRAM                       sendto         ETH_P_ARP
//	nping --arp   7.93     packet, SOCK_RAW                         sendto         ETH_P_ARP
//	nping --udp            raw IP, or packet with --send-eth        sendto         of the route, or as above
//	scapy         2.5.0    packet, SOCK_RAW                         bound          ETH_P_ALL
//	tcpreplay     4.4.3    packet, SOCK_RAW                         bound          ETH_P_ALL
//	trafgen       0.6.8    packet, PACKET_QDISC_BYPASS, TX_RING 2   bound          0
//	trafgen --gap          packet, PACKET_QDISC_BYPASS              sendto         0
//	udhcpc        1.35     packet, SOCK_DGRAM; UDP to renew         sendto         ETH_P_IP
//	dhclient      4.4.3    packet, SOCK_RAW; UDP to renew, release  bound          ETH_P_ALL
//	dhcpcd        9.4.1    packet, SOCK_RAW; UDP to renew           bound, writev  ETH_P_ALL
//	dhcpd         4.4.3    packet, SOCK_RAW                         bound          ETH_P_ALL
//	Kea           2.2.0    packet, SOCK_RAW                         sendto         ETH_P_IP
//	dnsmasq       2.90     UDP                                      sendmsg        of the route
//	keepalived    2.2.7    packet, SOCK_RAW; raw IP for VRRP        sendto         ETH_P_ARP
//	ucarp         1.5.2    packet, SOCK_RAW                         bound          ETH_P_ALL
//	ptp4l         3.1.1    packet, SOCK_RAW, SO_TIMESTAMPING        bound          ETH_P_ALL
//
// What users will notice: trafgen takes the ENOBUFS that a sender with
// PACKET_QDISC_BYPASS hears from the gate for a reason to send the same frame again, for
// ever; in a sealed cgroup it does without and ends. Under `hook: tc` every sender hears
// ENOBUFS for what was refused: there tcpreplay, too, gets no further, and scapy raises
// OSError. And ptp4l waits in vain for the transmit timestamp of an event message that
// was refused, and calls its port faulty.
package hostile
