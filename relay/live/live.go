// Package live keeps bindings in a set of the firewall in force, each with its lease's end as
// deadline, which passes in the kernel whether or not anybody lives to see it. It knows
// sets by their types, and nothing of policies and messages.
package live

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/relay/binding"
)

// Sets are the sets of the firewall in force: kernel.Host has them.
type Sets interface {
	Status() (*kernel.Status, error)
	Sets() ([]kernel.SetInfo, error)
	AddToSet(set string, deadline int64, elements ...[]string) error
	DeleteFromSet(set string, elements ...[]string) (deleted int, err error)
	ListSet(set string) ([]kernel.Element, error)
}

// Held tells who has an address.
type Held func(binding.IPv4) (binding.Binding, bool)

// Set is one of them. It belongs to one goroutine.
type Set struct {
	sets   Sets
	name   string
	held   Held
	log    *slog.Logger
	parts  []string
	behind bool
	failed string
	// leaving are bindings that have ended and may still be in the set; gone are those that have left it while a policy was on trial:
	// the one before, which may come back, has a set of its own.
	leaving, gone []binding.Binding
	trial         bool
}

// New takes a set by its name. It need not be there yet.
func New(sets Sets, name string, held Held, log *slog.Logger) *Set {
	return &Set{sets: sets, name: name, held: held, log: log, behind: true}
}

// Behind says that the set may lack bindings, since the last change to it has failed.
func (s *Set) Behind() bool { return s.behind }

// The parts of an element, by the type of the set: an interface, a VLAN, a hardware
// address and an IPv4 address, in any order.
var partTypes = []string{"string", "number", "mac", "ipv4"}

// learn finds the set and its types.
func (s *Set) learn() error {
	list, err := s.sets.Sets()
	if err != nil {
		return err
	}
	for _, info := range list {
		if info.Name != s.name {
			continue
		}
		for _, t := range info.Types {
			if !strings.Contains(strings.Join(partTypes, " "), t) {
				return fmt.Errorf("set %s has type %s: bindings are made of %s", s.name, t, strings.Join(partTypes, ", "))
			}
		}
		s.parts = info.Types
		return nil
	}
	return fmt.Errorf("set %s: %w", s.name, kernel.ErrNoSet)
}

func (s *Set) element(b *binding.Binding) []string {
	out := make([]string, len(s.parts))
	for i, t := range s.parts {
		switch t {
		case "string":
			out[i] = b.Interface
		case "ipv4":
			out[i] = b.IP.String()
		case "mac":
			out[i] = b.MAC.String()
		default:
			out[i] = strconv.Itoa(int(b.VLAN))
		}
	}
	return out
}

// Change takes bindings out that have ended, and puts new ones in.
func (s *Set) Change(ended []binding.Binding, changes []binding.Change) {
	s.leaving = append(s.leaving, ended...)
	if s.behind {
		return // the next Sync has them
	}
	err := s.leave()
	if err == nil {
		ends := ends{}
		last := map[binding.IPv4]bool{}
		for i := len(changes) - 1; i >= 0; i-- {
			c := &changes[i]
			if !c.Gone && !last[c.IP] {
				ends.add(s, &c.Binding)
			}
			last[c.IP] = true // what came before is over
		}
		err = s.add(ends)
	}
	s.told(err)
}

// leave takes out what has ended, unless somebody holds it again.
func (s *Set) leave() error {
	var gone [][]string
	for i := range s.leaving {
		b := &s.leaving[i]
		if now, ok := s.held(b.IP); !ok || !slices.Equal(s.element(&now), s.element(b)) {
			gone = append(gone, s.element(b))
		}
	}
	if len(gone) > 0 {
		if _, err := s.sets.DeleteFromSet(s.name, gone...); err != nil {
			return err
		}
	}
	s.left()
	return nil
}

// leaveBefore is leave where the policy in force has no such set: the one to which the kernel may go back can have it.
func (s *Set) leaveBefore() {
	if s.trial && s.parts != nil {
		_ = s.leave() // that there is no set is known, and that the one before may have other types
	}
	s.left()
}

// left is that what was leaving is not in the set any more.
func (s *Set) left() {
	if s.trial {
		s.gone = append(s.gone, s.leaving...)
	}
	s.leaving = nil
}

// look takes note of a policy that has come into force. What has left the set while one was on trial leaves it once more
// when that is over, whichever came of it.
func (s *Set) look(changed, trial bool) {
	s.behind = s.behind || changed
	if s.trial = trial; !trial && len(s.gone) > 0 {
		s.leaving, s.gone, s.behind = append(s.leaving, s.gone...), nil, true
	}
}

// ends are elements by their deadline.
type ends map[int64][][]string

// add rounds deadlines down to the second, so that many elements have the same one.
func (e ends) add(s *Set, b *binding.Binding) {
	at := b.Deadline
	if at != 0 {
		at = max(1, at-at%int64(time.Second))
	}
	e[at] = append(e[at], s.element(b))
}

func (s *Set) add(e ends) error {
	for deadline, elements := range e {
		if err := s.sets.AddToSet(s.name, deadline, elements...); err != nil {
			return err
		}
	}
	return nil
}

// Sync takes out what has ended, and adds what the set lacks. What is there and was never a binding
// stays: nothing leaves the set because a process has started.
func (s *Set) Sync(all []binding.Binding) {
	s.told(s.sync(all))
}

func (s *Set) sync(all []binding.Binding) error {
	err := s.learn()
	if errors.Is(err, kernel.ErrNothing) || errors.Is(err, kernel.ErrNoSet) {
		s.leaveBefore()
	}
	if err != nil {
		return err
	}
	if err := s.leave(); err != nil {
		return err
	}
	list, err := s.sets.ListSet(s.name)
	if err != nil {
		return err
	}
	now := binding.BootTime()
	there := make(map[string]int64, len(list))
	for _, e := range list {
		end := int64(0)
		if e.Remaining > 0 {
			end = now + int64(e.Remaining)
		}
		there[strings.Join(e.Text, " ")] = end
	}
	missing := ends{}
	for i := range all {
		b := &all[i]
		if b.Deadline != 0 && b.Deadline <= now {
			continue
		}
		end, ok := there[strings.Join(s.element(b), " ")]
		if off := end - b.Deadline; !ok || (end == 0) != (b.Deadline == 0) || off > int64(2*time.Second) || off < -int64(2*time.Second) {
			missing.add(s, b)
		}
	}
	return s.add(missing)
}

// told notes how it went, and says so when that has changed.
func (s *Set) told(err error) {
	s.behind = err != nil
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == s.failed {
		return
	}
	s.failed = text
	switch {
	case errors.Is(err, kernel.ErrNothing), errors.Is(err, kernel.ErrNoSet):
		s.log.Warn("no policy in force has the set: bindings are put into it as soon as one has", "set", s.name)
	case err != nil:
		s.log.Error("bindings are not in the set of the policy in force", "set", s.name, "error", err)
	default:
		s.log.Info("bindings are in the set of the policy in force", "set", s.name)
	}
}
