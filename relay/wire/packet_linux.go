package wire

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Frames says which frames a packet socket reads.
type Frames uint8

const (
	// Requests are those to the server port that this machine receives, without a VLAN tag. They
	// are read where the IP stack reads them, which also sees what an ifb sent on
	// (skb_skip_tc_classify in __netif_receive_skb_core): guarded machines send so.
	Requests Frames = iota
	// TaggedRequests are read before VLAN tags are forgotten.
	TaggedRequests
	// Routed are a server's answers that leave by the interface without a relay agent's
	// address: those to a client that has asked the server itself.
	Routed
	// Everything is what passes a port of a bridge: requests to whomever, and answers that leave.
	Everything
)

// receiveBuffer is room for bursts while the reader is at work.
const receiveBuffer = 4 << 20

// Packet opens a packet socket on an interface of the calling thread's network namespace.
func Packet(ifindex int, name string, frames Frames) (*Socket, error) {
	fd, err := packet(ifindex, frames)
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	return newSocket(fd, name)
}

func packet(ifindex int, frames Frames) (fd int, err error) {
	// Protocol 0 reads nothing: the filter comes first.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := attach(fd, filter(frames)); err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // the default is less, and works
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt PACKET_AUXDATA", err)
	}
	protocol := uint16(unix.ETH_P_ALL)
	if frames == Requests {
		protocol = unix.ETH_P_IP
	}
	return fd, os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: ifindex}))
}

func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	f := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	p := &unix.SockFprog{Len: uint16(len(f)), Filter: unsafe.SliceData(f)}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, p))
}

// filter passes UDP over IPv4 from and to DHCP's ports, fragments behind the first left out.
func filter(frames Frames) []bpf.Instruction {
	const drop, pass = 0, 0xffff
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 1},
		bpf.RetConstant{Val: drop},
		bpf.LoadAbsolute{Off: 23, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 1},
		bpf.RetConstant{Val: drop},
		bpf.LoadAbsolute{Off: 20, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipFalse: 1},
		bpf.RetConstant{Val: drop},
		bpf.LoadMemShift{Off: 14},
		bpf.LoadExtension{Num: bpf.ExtType},
	}
	request := []bpf.Instruction{
		bpf.LoadIndirect{Off: 16, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 67, SkipTrue: 1},
		bpf.RetConstant{Val: drop},
		bpf.RetConstant{Val: pass},
	}
	answer := []bpf.Instruction{
		bpf.LoadIndirect{Off: 14, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 67<<16 | 68, SkipTrue: 1},
		bpf.RetConstant{Val: drop},
	}
	if frames == Routed {
		// An agent's address is 24 bytes into the message: what agents relay is no news.
		answer = append(answer, bpf.LoadIndirect{Off: 14 + 8 + 24, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}, bpf.RetConstant{Val: drop})
	}
	answer = append(answer, bpf.RetConstant{Val: pass})
	switch frames {
	case Routed:
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1}, bpf.RetConstant{Val: drop})
		return append(out, answer...)
	case Everything:
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipFalse: uint8(len(answer))})
		return append(append(out, answer...), request...)
	}
	// To others it is addressed if its VLAN is none of ours (vlan_do_receive).
	out = append(out, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: unix.PACKET_OTHERHOST, SkipTrue: 1}, bpf.RetConstant{Val: drop})
	return append(out, request...)
}
