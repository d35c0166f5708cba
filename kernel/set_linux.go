package kernel

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/kernel/bpf"
)

// Sets are the sets in force.
func (h Host) Sets() (list []SetInfo, err error) {
	err = h.use(func(_ *session, st state) error {
		for _, slot := range st.current.Layout.Sets {
			info := SetInfo{Name: slot.Name}
			for _, t := range slot.Types {
				info.Types = append(info.Types, t.String())
			}
			err := st.current.engine.UpdateSet(slot.Name, func(u *bpf.SetUpdate) error {
				members, err := u.List()
				info.Elements = len(living(members))
				return err
			})
			if err != nil {
				return err
			}
			list = append(list, info)
		}
		return nil
	})
	return list, err
}

// living leaves out the elements whose time is over.
func living(members []bpf.Member) []bpf.Member {
	now := bootTime()
	return slices.DeleteFunc(members, func(m bpf.Member) bool { return m.Deadline != 0 && m.Deadline <= now })
}

// AddToSet puts elements into a set in force, each one text for each type of the set, or gives
// those it has another deadline: an instant of CLOCK_BOOTTIME in nanoseconds, 0 for never.
// It was fixed before, so that it passes whatever happens to the caller. Each element
// is in force when the next one is added; an error tells which one failed. It fails with
// ErrNothing and ErrNoSet.
func (h Host) AddToSet(set string, deadline int64, elements ...[]string) error {
	return h.updateSet(set, func(u *bpf.SetUpdate) error {
		list, err := parseElements(u.Decl(), elements)
		if err != nil {
			return err
		}
		for i := range list {
			list[i].Deadline = deadline
		}
		return u.Add(list...)
	})
}

// DeleteFromSet takes elements out of a set in force and returns how many of them were in it.
func (h Host) DeleteFromSet(set string, elements ...[]string) (deleted int, err error) {
	err = h.updateSet(set, func(u *bpf.SetUpdate) error {
		list, err := parseElements(u.Decl(), elements)
		if err != nil {
			return err
		}
		deleted = 0
		for _, e := range list {
			was, err := u.Delete(e)
			if err != nil {
				return err
			}
			if was {
				deleted++
			}
		}
		return nil
	})
	return deleted, err
}

func parseElements(d *firewall.SetDecl, elements [][]string) (list []firewall.Element, err error) {
	for _, text := range elements {
		e, err := d.Element(text...)
		if err != nil {
			return nil, fmt.Errorf("element %q of set %q: %w", text, d.Name, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// updateSet changes a set, and that of the policy to which the kernel may go back as well.
func (h Host) updateSet(set string, fn func(*bpf.SetUpdate) error) error {
	return h.use(func(_ *session, st state) error {
		if st.before != nil {
			err := st.before.engine.UpdateSet(set, fn)
			// It may have other sets, or other types.
			var wrong *filter.Error
			if err != nil && !errors.Is(err, ErrNoSet) && !errors.As(err, &wrong) {
				return err
			}
		}
		if err := st.current.engine.UpdateSet(set, fn); err != nil {
			return err
		}
		return st.current.resolveCgroups(nil) // the set may be one of cgroups
	})
}

// ListSet is the elements of a set in force, in no order.
func (h Host) ListSet(set string) (list []Element, err error) {
	err = h.use(func(_ *session, st state) error {
		return st.current.engine.UpdateSet(set, func(u *bpf.SetUpdate) error {
			members, err := u.List()
			now := bootTime()
			for _, m := range living(members) {
				e := Element{Declared: m.Declared}
				for _, r := range m.Parts {
					e.Text = append(e.Text, r.String())
				}
				if m.Deadline != 0 {
					e.Remaining = time.Duration(m.Deadline - now)
				}
				list = append(list, e)
			}
			return err
		})
	})
	return list, err
}
