package binding

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	// ErrInUse is matched where another process has the database open.
	ErrInUse = errors.New("another process has the database of bindings open")
	// ErrDatabase is matched where the file is no database of bindings.
	ErrDatabase = errors.New("not a database of bindings")
)

// The buckets: what is held, by address, and what has ended and may still be in a set of
// the firewall.
var (
	bucket  = []byte("bindings 1")
	leaving = []byte("leaving 1")
)

// Store is bindings on disk, in a bbolt database. What Commit has returned for is there after
// a crash.
type Store struct {
	db   *bbolt.DB
	boot [8]byte
}

// Open opens or makes a database. It fails with ErrInUse while another process has it.
func Open(path string) (*Store, error) {
	// The list of free pages is found again by reading, which is quick; writing it with
	// each commit is not.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 200 * time.Millisecond, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%s: %w: %w; move it away, and import leases", path, ErrDatabase, err)
	case err != nil:
		return nil, fmt.Errorf("database of bindings: %w", err)
	}
	s := &Store{db: db}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		copy(s.boot[:], id)
		err = db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(bucket)
			if err == nil {
				_, err = tx.CreateBucketIfNotExists(leaving)
			}
			return err
		})
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Close closes it.
func (s *Store) Close() error { return s.db.Close() }

// Commit writes changes, all or none. When it returns nil they are on disk. A binding that ends
// by them, or whose address another takes, is Leaving from then on; those in left no longer are.
func (s *Store) Commit(changes []Change, left ...Binding) error {
	if len(changes) == 0 && len(left) == 0 {
		return nil
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		w := writer{s, tx.Bucket(bucket), tx.Bucket(leaving)}
		w.held.FillPercent = 0.9 // addresses are given in order, mostly
		for i := range left {
			if err := w.leaving.Delete(leavingKey(&left[i])); err != nil {
				return err
			}
		}
		for i := range changes {
			if err := w.write(&changes[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// writer is a transaction.
type writer struct {
	*Store
	held, leaving *bbolt.Bucket
}

// write does what Table.Apply does.
func (w *writer) write(c *Change) error {
	var key [4]byte
	binary.BigEndian.PutUint32(key[:], uint32(c.IP))
	var old Binding
	was := w.held.Get(key[:])
	if was != nil {
		var err error
		if old, err = w.decode(key[:], was); err != nil {
			return err
		}
	}
	same := was != nil && old.MAC == c.MAC && old.Place == c.Place
	if was != nil && old.Static && !c.Static || c.Gone && !same {
		return nil
	}
	if was != nil && (c.Gone || !same) {
		if err := w.leaving.Put(leavingKey(&old), nil); err != nil {
			return err
		}
	}
	if c.Gone {
		return w.held.Delete(key[:])
	}
	return w.held.Put(key[:], w.encode(&c.Binding))
}

// leavingKey is what an element of a set may be made of.
func leavingKey(b *Binding) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(b.IP))
	out = append(out, b.MAC[:]...)
	return append(binary.BigEndian.AppendUint16(out, b.VLAN), b.Interface...)
}

// Leaving calls fn with each binding that has ended and may still be in a set.
func (s *Store) Leaving(fn func(Binding)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(leaving).ForEach(func(k, _ []byte) error {
			if len(k) < 12 {
				return fmt.Errorf("%w: %x leaves", ErrDatabase, k)
			}
			b := Binding{IP: IPv4(binary.BigEndian.Uint32(k)), MAC: MAC(k[4:10])}
			b.VLAN, b.Interface = binary.BigEndian.Uint16(k[10:]), string(k[12:])
			fn(b)
			return nil
		})
	})
}

// Load calls fn with each binding. Deadlines of another boot are found from the wall clock.
func (s *Store) Load(fn func(Binding)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			b, err := s.decode(k, v)
			if err == nil {
				fn(b)
			}
			return err
		})
	})
}

// A record: boot, expiry and deadline (8 bytes each), server (4), hardware address (6), VLAN
// (2), the length of the interface's name (1), the name, and the client identifier.
const fixed = 8 + 8 + 8 + 4 + 6 + 2 + 1

// static stands for the expiry of bindings of the configuration: what it has no longer has to
// leave the firewall's set.
const static = -1

func (s *Store) encode(b *Binding) []byte {
	out := make([]byte, 0, fixed+len(b.Interface)+len(b.ClientID))
	out = append(out, s.boot[:]...)
	expiry := b.Expiry
	if b.Static {
		expiry = static
	}
	out = binary.BigEndian.AppendUint64(out, uint64(expiry))
	out = binary.BigEndian.AppendUint64(out, uint64(b.Deadline))
	out = binary.BigEndian.AppendUint32(out, uint32(b.Server))
	out = append(out, b.MAC[:]...)
	out = binary.BigEndian.AppendUint16(out, b.VLAN)
	out = append(append(out, byte(len(b.Interface))), b.Interface...)
	return append(out, b.ClientID...)
}

func (s *Store) decode(k, v []byte) (b Binding, err error) {
	if len(k) != 4 || len(v) < fixed || len(v) < fixed+int(v[fixed-1]) {
		return b, fmt.Errorf("%w: a record of %d bytes under %x", ErrDatabase, len(v), k)
	}
	b.IP = IPv4(binary.BigEndian.Uint32(k))
	b.Expiry, b.Deadline = int64(binary.BigEndian.Uint64(v[8:])), int64(binary.BigEndian.Uint64(v[16:]))
	b.Server = IPv4(binary.BigEndian.Uint32(v[24:]))
	copy(b.MAC[:], v[28:])
	b.VLAN = binary.BigEndian.Uint16(v[34:])
	if b.Static = b.Expiry == static; b.Static {
		b.Expiry, b.Deadline = 0, 0
	}
	name := int(v[fixed-1])
	b.Interface, b.ClientID = string(v[fixed:fixed+name]), string(v[fixed+name:])
	if b.Deadline != 0 && !bytes.Equal(v[:8], s.boot[:]) {
		b.Deadline = max(1, BootTime()+b.Expiry-time.Now().UnixNano())
	}
	return b, nil
}
