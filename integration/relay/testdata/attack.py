# What scapy forges on a bridge: of DHCP, each message known by its transaction, of ARP and IPv4.
# Arguments: interface, the victim's address and hardware address.
import sys
from scapy.all import ARP, BOOTP, DHCP, IP, UDP, Dot1Q, Ether, get_if_hwaddr, sendp

iface, victim, mac = sys.argv[1:]
own = get_if_hwaddr(iface)
everyone = "ff:ff:ff:ff:ff:ff"
server = ("server_id", "10.1.0.1")


def chaddr(m):
    return bytes.fromhex(m.replace(":", "")) + bytes(10)


def message(xid, options, op=1, hw=own, source=own, sport=68, dport=67, src="0.0.0.0", link=None, **fields):
    return ((link or Ether(src=source, dst=everyone)) / IP(src=src, dst="255.255.255.255")
            / UDP(sport=sport, dport=dport) / BOOTP(op=op, xid=xid, chaddr=chaddr(hw), **fields)
            / DHCP(options=options + ["end"]))


def kind(name):
    return ("message-type", name)


sendp([
    message(1, [kind("offer"), server], op=2, hw=mac, sport=67, dport=68, yiaddr=victim),
    message(2, [kind("ack"), server, ("lease_time", 600)], op=2, hw=mac, sport=67, dport=68, yiaddr=victim),
    message(3, [kind("release"), server], ciaddr=victim),
    message(4, [kind("release"), server], hw=mac, ciaddr=victim),
    message(5, [kind("decline"), server, ("requested_addr", victim)]),
    message(6, [kind("discover")], giaddr="10.1.0.99"),
    message(7, [kind("discover"), ("relay_agent_information", b"\x05\x04\x0a\x02\x00\x00")]),
    message(8, [kind("discover"), ("client_id", b"\x01" + chaddr(mac)[:6])]),
    message(9, [kind("discover")], link=Ether(src=own, dst=everyone) / Dot1Q(vlan=7)),
    message(10, [kind("discover")], hw="02:00:00:00:00:99"),
    Ether(src=own, dst=everyone) / ARP(op=1, hwsrc=own, psrc="10.1.0.1", pdst="10.1.0.1"),
    Ether(src=own, dst=everyone) / ARP(op=1, hwsrc=own, hwdst="00:00:00:00:00:00", psrc="0.0.0.0", pdst=victim),
    Ether(src=own, dst=everyone, type=0x8035) / ARP(op=3, hwsrc=own, psrc="0.0.0.0", hwdst=own, pdst="0.0.0.0"),
    Ether(src=own, dst=everyone) / IP(src=victim, dst="10.1.255.255") / UDP(sport=9, dport=9),
    Ether(src=mac, dst=everyone) / IP(src=victim, dst="10.1.255.255") / UDP(sport=9, dport=10),
], iface=iface, verbose=False)
