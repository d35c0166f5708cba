# What scapy sends of DHCP, forged and honest. Argument: interface. Each message is
# known by its transaction.
import sys
from scapy.all import BOOTP, DHCP, IP, UDP, Ether, RandMAC, get_if_hwaddr, sendp

iface = sys.argv[1]
own = get_if_hwaddr(iface)
victim = "02:00:00:00:00:99"


def chaddr(mac):
    return bytes.fromhex(mac.replace(":", "")) + bytes(10)


def message(xid, options, op=1, mac=own, source=own, sport=68, dport=67, src="0.0.0.0", **fields):
    return (Ether(src=source, dst="ff:ff:ff:ff:ff:ff") / IP(src=src, dst="255.255.255.255")
            / UDP(sport=sport, dport=dport) / BOOTP(op=op, xid=xid, chaddr=chaddr(mac), **fields)
            / DHCP(options=options + ["end"]))


def answer(xid, kind, **fields):
    options = [("message-type", kind), ("server_id", "192.0.2.99"), ("lease_time", 600), ("subnet_mask", "255.255.255.0")]
    return message(xid, options, op=2, mac=victim, sport=67, dport=68, src="192.0.2.99", yiaddr="192.0.2.100", **fields)


discover = [("message-type", "discover")]
overload = [(52, b"\x01")]
sendp([
    answer(1, "offer"),
    answer(2, "ack"),
    answer(3, "nak"),
    # An OFFER from a client's port, as a request, whose type stands in `file`.
    message(4, overload, file=b"\x35\x01\x02\xff" + bytes(124)),
    # Two types: a client's, and a server's behind it.
    message(5, discover + [("message-type", "offer")]),
    message(6, [("message-type", "release"), ("server_id", "192.0.2.1")], mac=victim, ciaddr="192.0.2.100"),
    message(7, [("message-type", "release"), ("server_id", "192.0.2.1"), ("client_id", b"\x01" + chaddr(victim)[:6])], ciaddr="192.0.2.100"),
    message(8, [("message-type", "decline"), ("requested_addr", "192.0.2.100")], mac=victim, source=victim),
    message(9, discover + [("relay_agent_information", b"\x01\x04port")]),
    *(message(10, discover, mac=str(RandMAC("02:*:*:*:*:*"))) for _ in range(20)),
    *(message(11, discover, mac=mac, source=mac) for mac in (str(RandMAC("02:*:*:*:*:*")) for _ in range(20))),
    # honest
    message(12, discover),
    message(13, [("message-type", "request"), ("server_id", "192.0.2.1"), ("requested_addr", "192.0.2.100")]),
], iface=iface, verbose=False)
