package binding

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func all(t testing.TB, s *Store) map[IPv4]Binding {
	t.Helper()
	out := map[IPv4]Binding{}
	must(t, s.Load(func(b Binding) { out[b.IP] = b }))
	return out
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	b := Binding{IP: 0x0a010064, MAC: alice, Place: Place{"veth1", 7}, ClientID: "\x01abc", Server: 5}
	b.Until(BootTime(), 600)
	never := Binding{IP: 2, MAC: bob, Place: port2}
	static := Binding{IP: 3, MAC: bob, Place: port2, Static: true}
	must(t, s.Commit([]Change{{Binding: b}, {Binding: never}, {Binding: static}}))
	if _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, s.Close())
	s = open(t, path)
	if got := all(t, s); len(got) != 3 || got[b.IP] != b || got[2] != never || got[3] != static {
		t.Errorf("%+v", got)
	}
	// What another has taken over is not taken away.
	must(t, s.Commit([]Change{{Binding: Binding{IP: b.IP, MAC: bob, Place: b.Place}, Gone: true}}))
	if got := all(t, s); len(got) != 3 || len(gone(t, s)) != 0 {
		t.Errorf("%+v, leaving %v", got, gone(t, s))
	}
	must(t, s.Commit([]Change{{Binding: b, Gone: true}}))
	if got := all(t, s); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

func gone(t testing.TB, s *Store) (list []string) {
	t.Helper()
	must(t, s.Leaving(func(b Binding) { list = append(list, b.String()) }))
	return list
}

// What has ended, or been taken over, is remembered until it has left the firewall's set. Static
// bindings give way to nothing but the configuration.
func TestLeaving(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	first, second := Binding{IP: 1, MAC: alice, Place: Place{"veth1", 7}}, Binding{IP: 1, MAC: bob, Place: port2}
	static := Binding{IP: 1, MAC: alice, Place: port1, Static: true}
	for _, tt := range []struct {
		change Change
		held   Binding
		leave  []string
	}{
		{Change{Binding: first}, first, nil},
		{Change{Binding: first}, first, nil}, // renewed
		{Change{Binding: second}, second, []string{first.String()}},
		{Change{Binding: static}, static, []string{second.String()}},
		{Change{Binding: first}, static, nil},
		{Change{Binding: Binding{IP: 1, MAC: alice, Place: port1}, Gone: true}, static, nil},
		{Change{Binding: static, Gone: true}, Binding{}, []string{static.String()}},
	} {
		must(t, s.Commit([]Change{tt.change}))
		if got, leave := all(t, s)[1], gone(t, s); got != tt.held || !slices.Equal(leave, tt.leave) {
			t.Errorf("after %v: held %v, want %v; leaving %v, want %v", tt.change, got, tt.held, leave, tt.leave)
		}
		must(t, s.Commit(nil, first, second, static))
		if leave := gone(t, s); leave != nil {
			t.Errorf("after all have left, %v leave", leave)
		}
	}
}

// After another boot CLOCK_BOOTTIME begins anew: the wall clock tells then.
func TestStoreAfterBoot(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	b := Binding{IP: 1, MAC: alice, Place: port1, Deadline: 5, Expiry: time.Now().Add(time.Hour).UnixNano()}
	s.boot[0]++
	must(t, s.Commit([]Change{{Binding: b}}))
	s.boot[0]--
	left := time.Duration(all(t, s)[1].Deadline - BootTime())
	if left < 50*time.Minute || left > time.Hour {
		t.Errorf("%v are left of an hour", left)
	}
}

func TestNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	must(t, os.WriteFile(path, make([]byte, 8192), 0o600))
	if _, err := Open(path); !errors.Is(err, ErrDatabase) {
		t.Errorf("%v", err)
	}
	if _, err := Open(filepath.Join(path, "db")); err == nil || errors.Is(err, ErrDatabase) {
		t.Errorf("%v", err)
	}
}

// many are bindings of as many clients.
func many(from IPv4, n int) (list []Change) {
	for i := range n {
		b := Binding{IP: from + IPv4(i), Place: Place{"veth1", 0}, ClientID: "\x01\x02\x00"}
		binary.BigEndian.PutUint32(b.MAC[2:], uint32(b.IP))
		b.ClientID += string(b.MAC[2:])
		b.Until(BootTime(), 3600)
		list = append(list, Change{Binding: b})
	}
	return list
}

// BenchmarkLoad reads a million bindings, as a relay does when it starts, and tells what each
// takes of memory.
func BenchmarkLoad(b *testing.B) {
	const n = 1_000_000
	path := filepath.Join(b.TempDir(), "db")
	s := open(b, path)
	for at := 0; at < n; at += 10_000 {
		must(b, s.Commit(many(0x0a000000+IPv4(at), 10_000)))
	}
	must(b, s.Close())
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, err := Open(path)
		must(b, err)
		table := NewTable()
		must(b, s.Load(func(b Binding) { table.Apply([]Change{{Binding: b}}, func(Binding) {}) }))
		b.StopTimer()
		if table.Len() != n {
			b.Fatal(table.Len())
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(table)
		must(b, s.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/binding")
	if info, err := os.Stat(path); err == nil {
		b.ReportMetric(float64(info.Size())/n, "disk-B/binding")
	}
}

// BenchmarkCommit is one binding at a time, and many together.
func BenchmarkCommit(b *testing.B) {
	for name, n := range map[string]int{"1": 1, "100": 100} {
		b.Run(name, func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "db"))
			at := IPv4(0)
			for b.Loop() {
				must(b, s.Commit(many(at, n)))
				at += IPv4(n)
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "bindings/s")
		})
	}
}

// FuzzRecord: whatever stands in a database, a record is one, or the file is none of ours.
func FuzzRecord(f *testing.F) {
	s := &Store{}
	b := Binding{IP: 1, MAC: alice, Place: Place{"veth1", 7}, ClientID: "\x01abc", Server: 5, Expiry: 3, Deadline: 4}
	f.Add([]byte{0, 0, 0, 1}, s.encode(&b))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		b, err := s.decode(k, v)
		if err != nil {
			if !errors.Is(err, ErrDatabase) {
				t.Error(err)
			}
			return
		}
		if again, err := s.decode(k, s.encode(&b)); err != nil || again != b {
			t.Errorf("%v became %v, %v", b, again, err)
		}
	})
}
