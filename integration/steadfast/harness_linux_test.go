package steadfast

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/gate"
)

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

// The frames that are sent are ARP announcements of 192.0.2.1 and 192.0.2.3, which are honest, the latter
// with PACKET_QDISC_BYPASS, and of 192.0.2.2.
const honest, forged, honestBypass = 1, 2, 3

// world is a near namespace that is guarded, and counters of what its sockets get out.
type world struct {
	*lab.Pair
	kernel.Host
	t testing.TB
	// letGo counts what passed every hook of postern's, at the end of the near interface's tc egress;
	// arrived what came to the far one, also past tc.
	letGo, arrived *ebpf.Map
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for network namespaces and eBPF")
	}
	if err := gate.Probe(0); err != nil {
		cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	p, err := lab.New()
	must(t, err)
	t.Cleanup(p.Close)
	root, unmount, err := lab.BPFFS()
	must(t, err)
	t.Cleanup(unmount)
	w := &world{Pair: p, Host: kernel.Host{Root: filepath.Join(root, "postern"), NetNS: int(p.NS[0])}, t: t}
	var program *ebpf.Program
	w.letGo, program = counter(t, ebpf.SchedCLS, -1) // TCX_NEXT
	must(t, p.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: p.Ifi[0].Index, Program: program, Attach: ebpf.AttachTCXEgress, Anchor: link.Tail()})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	w.arrived, program = counter(t, ebpf.XDP, 1) // XDP_DROP: nobody else is to see them
	must(t, p.Do(1, func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: p.Ifi[1].Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	return w
}

// counter is a program that counts ARP frames by their byte 31, the last of the sender's address.
func counter(t testing.TB, typ ebpf.ProgramType, ret int32) (*ebpf.Map, *ebpf.Program) {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 256})
	must(t, err)
	t.Cleanup(func() { counts.Close() })
	load := asm.FnSkbLoadBytes
	if typ == ebpf.XDP {
		load = asm.FnXdpLoadBytes
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: typ, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, 12),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -32),
		asm.Mov.Imm(asm.R4, 20),
		load.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R0, asm.RFP, -32, asm.Half),
		asm.JNE.Imm(asm.R0, 0x0608, "out"),
		asm.LoadMem(asm.R0, asm.RFP, -13, asm.Byte), asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, ret).WithSymbol("out"), asm.Return(),
	}})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return counts, p
}

func (w *world) count(m *ebpf.Map, x uint32) (n int64) {
	w.t.Helper()
	var cpus []uint64
	must(w.t, m.Lookup(x, &cpus))
	for _, c := range cpus {
		n += int64(c)
	}
	return n
}

// letGoNow is how many honest frames passed.
func (w *world) letGoNow() int64 { return w.count(w.letGo, honest) + w.count(w.letGo, honestBypass) }

// out is how many forged frames got out, by either count.
func (w *world) out() int64 {
	return max(w.count(w.letGo, forged), w.count(w.arrived, forged))
}

// frame is an announcement.
func (w *world) frame(x byte) []byte {
	b := append([]byte("\xff\xff\xff\xff\xff\xff"), w.Ifi[0].HardwareAddr...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, w.Ifi[0].HardwareAddr...), 192, 0, 2, x, 0, 0, 0, 0, 0, 0, 192, 0, 2, x)
	return append(b, make([]byte, 60-len(b))...)
}

// flood sends honest and forged frames in turn by a socket each for bypass, as fast as it can.
type flood struct {
	sent   [4]atomic.Int64
	stop   func()
	pause  atomic.Bool
	parked atomic.Int32
	n      int32
}

// still runs fn while no frame is under way, so that what was sent and what got out can be compared.
func (f *flood) still(fn func()) {
	f.pause.Store(true)
	for f.parked.Load() != f.n {
		time.Sleep(10 * time.Microsecond)
	}
	fn()
	f.pause.Store(false)
	for f.parked.Load() != 0 {
		time.Sleep(10 * time.Microsecond)
	}
}

func (f *flood) park() {
	f.parked.Add(1)
	for f.pause.Load() {
		time.Sleep(10 * time.Microsecond)
	}
	f.parked.Add(-1)
}

func (w *world) flood(bypass ...bool) *flood {
	w.t.Helper()
	f := &flood{n: int32(len(bypass))}
	var done atomic.Bool
	var wg sync.WaitGroup
	for _, bypass := range bypass {
		var fd int
		must(w.t, w.Do(0, func() (err error) {
			if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err == nil && bypass {
				err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
			}
			return err
		}))
		wg.Go(func() {
			defer unix.Close(fd)
			to := &unix.SockaddrLinklayer{Ifindex: w.Ifi[0].Index, Protocol: 0x0608}
			kinds := []byte{honest, forged}
			if bypass {
				kinds[0] = honestBypass
			}
			frames := [][]byte{w.frame(kinds[0]), w.frame(kinds[1])}
			for i := 0; !done.Load(); i++ {
				if f.pause.Load() {
					f.park()
				}
				err := unix.Sendto(fd, frames[i%2], 0, to)
				if err != nil && !errors.Is(err, unix.ENOBUFS) {
					w.t.Errorf("sending: %v", err)
					return
				}
				f.sent[kinds[i%2]].Add(1)
			}
		})
	}
	f.stop = sync.OnceFunc(func() { done.Store(true); wg.Wait() })
	w.t.Cleanup(f.stop)
	return f
}

// policy accepts the honest frame and not the other; kind makes it differ.
func policy(hook string, kind int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy: p%d\nhook: %s\nguard: [{interfaces: [near]}]\n", kind, hook)
	fmt.Fprintf(&b, "sets:\n  vips: {type: ipv4, elements: [192.0.2.1, 192.0.2.3, 198.51.100.%d]}\n  live: {type: ipv4}\nrules:\n", kind%250)
	for i := range 1 + kind%40 { // one after the other, or by look-ups
		fmt.Fprintf(&b, "  - {name: r%d, match: arp.src.proto_ipv4 == 203.0.113.%d, verdict: accept}\n", i, i)
	}
	if kind%3 == 0 {
		b.WriteString("  - {name: foreign, match: arp && !(arp.src.proto_ipv4 in @vips), verdict: drop}\n")
	}
	b.WriteString("  - {name: own, match: arp.src.proto_ipv4 in @vips && eth.src == iface.mac, verdict: accept}\n")
	return b.String()
}

// postern builds the command, once.
var postern = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postern-steadfast-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "postern")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/postern").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := postern(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// command is postern with arguments, in the near namespace, its pins in the test's bpffs: the
// process with the command's own id, so that it can be killed.
func (w *world) command(args ...string) (*exec.Cmd, error) {
	path, err := postern()
	if err != nil {
		return nil, err
	}
	script := `mount --bind "$0" /sys/fs/bpf && exec "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", script, filepath.Dir(w.Root), path}, args...)...)
	return cmd, nil
}
