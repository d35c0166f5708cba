package rows

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// chain adds a chain of nftables, other people's, to a device's hook in the guarded namespace. It counts
// announcements and then does what the statement says with them.
func (w *world) chain(name, hook, device string, priority int, statement string) {
	w.t.Helper()
	w.nft(fmt.Sprintf(`table netdev foreign {
	counter %[1]s { }
	chain %[1]s {
		type filter hook %[2]s device "%[3]s" priority %[4]d
		arp saddr ip 192.0.2.0/24 counter name %[1]s %[5]s
	}
}`, name, hook, device, priority, statement))
}

func (w *world) nft(args ...string) []byte {
	w.t.Helper()
	path := labtest.Tool(w.t, "nft", "nftables")
	var out []byte
	must(w.t, w.Do(0, func() (err error) {
		if out, err = exec.Command(path, args...).CombinedOutput(); err != nil {
			err = fmt.Errorf("nft: %w: %s", err, out)
		}
		return err
	}))
	return out
}

// counted is how many frames a chain has seen.
func (w *world) counted(name string) int {
	w.t.Helper()
	var reply struct {
		Nftables []struct{ Counter struct{ Packets *int } }
	}
	must(w.t, json.Unmarshal(w.nft("-j", "list", "counter", "netdev", "foreign", name), &reply))
	for _, r := range reply.Nftables {
		if r.Counter.Packets != nil {
			return *r.Counter.Packets
		}
	}
	w.t.Fatalf("nft knows no counter %s", name)
	return 0
}

// marks is a tc program of somebody else: it counts frames of announcements by their
// mark, 0 to 15, or sets it.
type marks struct {
	t      testing.TB
	counts *ebpf.Map
}

const skbMark = 8 // struct __sk_buff

// readMarks attaches one that counts, at a device's hook behind what is there. It must outlive
// later Apply, which puts its own programs before.
func (w *world) readMarks(ifindex int, hook ebpf.AttachType) *marks {
	w.t.Helper()
	m := &marks{t: w.t}
	var err error
	m.counts, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 16})
	must(w.t, err)
	w.t.Cleanup(func() { m.counts.Close() })
	w.attach(ifindex, hook, link.Tail(), asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, skbMark, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word),
		asm.Mov.Imm(asm.R2, 28), // the sender protocol address's network
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Word), asm.And.Imm(asm.R1, 0xffffff),
		asm.JNE.Imm(asm.R1, 0x0200c0, "next"),
		asm.LoadMapPtr(asm.R1, m.counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("next"), // TCX_NEXT
		asm.Return(),
	})
	return m
}

// setMark attaches one that sets the mark, at a device's hook before what is there.
func (w *world) setMark(ifindex int, hook ebpf.AttachType, mark int32) {
	w.t.Helper()
	w.attach(ifindex, hook, link.Head(), asm.Instructions{
		asm.StoreImm(asm.R1, skbMark, int64(mark), asm.Word),
		asm.Mov.Imm(asm.R0, -1), // TCX_NEXT
		asm.Return(),
	})
}

func (w *world) attach(ifindex int, hook ebpf.AttachType, where link.Anchor, ins asm.Instructions) {
	w.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: ins})
	must(w.t, err)
	w.t.Cleanup(func() { p.Close() })
	must(w.t, w.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: hook, Anchor: where})
		if err == nil {
			w.t.Cleanup(func() { l.Close() })
		}
		return err
	}))
}

// of is how many frames with this mark came by.
func (m *marks) of(mark uint32) (n int) {
	m.t.Helper()
	var v uint64
	must(m.t, m.counts.Lookup(mark, &v))
	return int(v)
}
