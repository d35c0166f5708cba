package main

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestConstantMemory leads a capture of 1 GiB through the commands that read
// any, and looks at the heap on the way.
func TestConstantMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() || raceDetector {
		size = 64 << 20
	}
	dir := fixtures(t, ".")
	for _, args := range [][]string{
		{"match", "dhcp.option.dhcp == 2 && vlan", "-"},
		{"replay", "-f", dir + "/good.yaml", "-w", dir + "/dropped.pcapng", "-"},
	} {
		t.Run(args[0], func(t *testing.T) {
			if args[0] == "replay" {
				args[4] = "/dev/null"
			}
			in := newFlood(t, size)
			var errs bytes.Buffer
			start := time.Now()
			if code := run(args, in, io.Discard, &errs); code != 0 {
				t.Fatalf("exit code %d: %s", code, errs.String())
			}
			if in.left > 0 {
				t.Errorf("%d bytes were not read", in.left)
			}
			if in.heap > in.before+8<<20 {
				t.Errorf("the heap grew from %d to %d bytes", in.before, in.heap)
			}
			t.Logf("%d MiB in %v, heap at most %d KiB above the start's", size>>20, time.Since(start).Round(time.Millisecond), (int64(in.heap)-int64(in.before))>>10)
		})
	}
}

// flood reads as a capture of about left bytes, and watches the heap.
type flood struct {
	head, frames []byte
	at           int
	left         int64
	sinceLook    int
	before, heap uint64
}

func newFlood(t *testing.T, size int64) *flood {
	f := &flood{head: pcapHeader(1), left: size}
	for i, s := range []string{frameRequest, frameReply, frameForged, frameOffer, frameLLDP + strings.Repeat("00", 1400)} {
		f.frames = append(f.frames, pcapRecord(i, fromHex(t, s))...)
	}
	f.left -= f.left % int64(len(f.frames))
	f.before = heapInUse()
	return f
}

func (f *flood) Read(b []byte) (int, error) {
	if len(f.head) > 0 {
		n := copy(b, f.head)
		f.head = f.head[n:]
		return n, nil
	}
	if f.left == 0 {
		return 0, io.EOF
	}
	n := copy(b, f.frames[f.at:])
	f.at = (f.at + n) % len(f.frames)
	f.left -= int64(n)
	if f.sinceLook += n; f.sinceLook > 32<<20 {
		f.sinceLook = 0
		f.heap = max(f.heap, heapInUse())
	}
	return n, nil
}

// heapInUse is what survives a collection.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
