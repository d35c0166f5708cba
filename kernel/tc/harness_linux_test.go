package tc

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// room is a lab, and a mount namespace with a bpffs of its own.
type room struct {
	*lab.Pair
	bpffs string
}

// inRoom runs fn on a thread whose mount namespace ends with it.
func inRoom(t *testing.T, fn func(t *testing.T, r room)) {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for namespaces, to mount a bpffs, and to load programs")
	}
	for _, k := range []Kind{TCX, Clsact} {
		if err := k.Probe(); err != nil {
			cannot(t, "needs a kernel with tcx and clsact: "+err.Error())
		}
	}
	p, err := lab.New()
	must(t, err)
	defer p.Close()
	done := make(chan struct{})
	go func() { // Never unlocked: the thread is thrown away, and its namespace with it.
		defer close(done)
		runtime.LockOSThread()
		must(t, unix.Unshare(unix.CLONE_NEWNS))
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		r := room{Pair: p, bpffs: filepath.Join(t.TempDir(), "bpf")}
		must(t, os.Mkdir(r.bpffs, 0o755))
		must(t, unix.Mount("bpf", r.bpffs, "bpf", 0, ""))
		defer unix.Unmount(r.bpffs, unix.MNT_DETACH)
		fn(t, r)
	}()
	<-done
}

// way is the attachment at the near device's egress, or the far device's ingress.
func (r room) way(k Kind, d Direction) Attachment {
	a := Attachment{Direction: d, Kind: k, Dir: filepath.Join(r.bpffs, "postern")}
	i := int(d)
	a.Interface, a.NetNS = r.Ifi[i].Index, int(r.NS[i])
	return a
}

// etherType is one for local experiments (IEEE 802 clause 9.2.3). Frames of the tests
// have behind it the kind, and the stamp of the program that let them pass: 0 at first.
const etherType = 0x88b5

func htons(v uint16) uint16 { return v<<8 | v>>8 }

const kinds, stamps = 4, 4

func frame(kind byte) []byte {
	f := make([]byte, 64)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, etherType >> 8, etherType & 0xff, kind})
	return f
}

// judge is a program that refuses the test's frames of one kind, stamps the others, and leaves
// the rest of the decision to those behind it.
type judge struct {
	*ebpf.Program
	seen *ebpf.Map
}

func newJudge(t testing.TB, refuses, stamp int32) judge {
	t.Helper()
	j, err := makeJudge(refuses, stamp)
	must(t, err)
	t.Cleanup(func() { j.Close(); j.seen.Close() })
	return j
}

func makeJudge(refuses, stamp int32) (j judge, err error) {
	if j.seen, err = newCounts(1); err != nil {
		return j, err
	}
	prog := append(load(), asm.StoreImm(asm.RFP, -12, 0, asm.Word))
	prog = append(prog, count(j.seen)...)
	prog = append(prog,
		asm.LoadMem(asm.R1, asm.RFP, -6, asm.Byte),
		asm.JEq.Imm(asm.R1, refuses, "refuse"),
		asm.StoreImm(asm.RFP, -16, int64(stamp), asm.Byte),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 15), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 1), asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call(),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("other"), // TCX_NEXT
		asm.Return(),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("refuse"), // TCX_DROP
		asm.Return(),
	)
	j.Program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "judge", Type: ebpf.SchedCLS, License: "GPL", Instructions: prog})
	return j, err
}

// judged is how many of the test's frames the program was asked about.
func (j judge) judged(t testing.TB) int { return lookup(t, j.seen, 0) }

// load puts the bytes 12 to 15 of a frame at fp-8; what is none of the test's goes to "other".
func load() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R2, 12),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "other"),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Byte), asm.JNE.Imm(asm.R1, etherType>>8, "other"),
		asm.LoadMem(asm.R1, asm.RFP, -7, asm.Byte), asm.JNE.Imm(asm.R1, etherType&0xff, "other"),
	}
}

// count adds one to the element whose number is at fp-12.
func count(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -12),
		asm.LoadMapPtr(asm.R1, m.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "other"),
		asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
	}
}

func newCounts(n uint32) (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: n})
}

func lookup(t testing.TB, m *ebpf.Map, key uint32) int {
	t.Helper()
	var n uint64
	must(t, m.Lookup(key, &n))
	return int(n)
}

// observer counts what arrives in the far namespace, by kind and stamp: a packet socket of
// the test's EtherType, which is asked behind tc ingress (deliver_ptype_list_skb), and
// whose filter counts, so that no frame is lost in a queue.
type observer struct {
	t    testing.TB
	seen *ebpf.Map
}

func observe(t testing.TB, r room) observer {
	t.Helper()
	seen, err := newCounts(kinds * stamps)
	must(t, err)
	t.Cleanup(func() { seen.Close() })
	prog := append(load(),
		asm.LoadMem(asm.R1, asm.RFP, -6, asm.Byte), asm.And.Imm(asm.R1, kinds-1), asm.Mul.Imm(asm.R1, stamps),
		asm.LoadMem(asm.R2, asm.RFP, -5, asm.Byte), asm.And.Imm(asm.R2, stamps-1), asm.Add.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.RFP, -12, asm.R1, asm.Word))
	prog = append(prog, count(seen)...)
	prog = append(prog, asm.Mov.Imm(asm.R0, 0).WithSymbol("other"), asm.Return())
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "observer", Type: ebpf.SocketFilter, License: "GPL", Instructions: prog})
	must(t, err)
	defer p.Close()
	fd := r.socket(t, 1, 0)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.FD()))
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(etherType), Ifindex: r.Ifi[1].Index}))
	return observer{t, seen}
}

// counts is how many arrived, by kind and stamp, once none has for a while.
func (o observer) counts() (c [kinds][stamps]int) {
	o.t.Helper()
	for quiet := 0; quiet < 5; quiet++ {
		before := c
		for i := range kinds * stamps {
			c[i/stamps][i%stamps] = lookup(o.t, o.seen, uint32(i))
		}
		if c != before {
			quiet = 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	return c
}

func (r room) socket(t testing.TB, ns int, protocol int) (fd int) {
	t.Helper()
	must(t, r.Do(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return err
	}))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// sender sends a frame from the near device. That it was refused (ENOBUFS) is no error.
func (r room) sender(t testing.TB) func(kind byte) error {
	t.Helper()
	fd := r.socket(t, 0, 0)
	to := &unix.SockaddrLinklayer{Protocol: htons(etherType), Ifindex: r.Ifi[0].Index}
	return func(kind byte) error {
		if err := unix.Sendto(fd, frame(kind), 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		return nil
	}
}

// passed sends n frames of the kinds 1 and 2, and says which arrived, by kind and stamp.
func (r room) passed(t testing.TB, n int) [kinds][stamps]int {
	t.Helper()
	o, send := observe(t, r), r.sender(t)
	for range n {
		must(t, send(1))
		must(t, send(2))
	}
	return o.counts()
}

var pass = asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()} // XDP_PASS
