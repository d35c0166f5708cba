package fence

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel"
)

// Kernel is what is used of kernel.Host.
type Kernel interface {
	Apply(kernel.Source, kernel.ApplyOptions) (*kernel.Status, error)
	AddToSet(set string, deadline int64, elements ...[]string) error
	DeleteFromSet(set string, elements ...[]string) (deleted int, err error)
	ListSet(set string) ([]kernel.Element, error)
	Status() (*kernel.Status, error)
}

// Fence is a cluster.Door.
type Fence struct {
	Kernel Kernel
	// Firewall is the same policy for the agent's own sockets.
	Firewall *firewall.Firewall
	decl     *firewall.SetDecl

	mu       sync.Mutex
	policies []string // names of those that may be in force
	change   int      // of policies, counted
}

var _ cluster.Door = (*Fence)(nil)

// Raise puts a policy in force, with what its set held before, and returns when every
// frame is judged by it.
func Raise(k Kernel, c *cluster.Config, src kernel.Source, interfaces []string) (*Fence, error) {
	p, _, err := firewall.Parse(src.Name, src.Text)
	if err != nil {
		return nil, err
	}
	if err := check(c, p); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", src.Name, ErrNoFence, err)
	}
	return raise(k, p, p.Name, src, interfaces)
}

// raise puts src in force, a policy of that name, of which p is what the agent's own sockets have.
func raise(k Kernel, p *firewall.Policy, name string, src kernel.Source, interfaces []string) (f *Fence, err error) {
	f = &Fence{Kernel: k, policies: []string{name}}
	for _, s := range p.Sets {
		if s.Name == Set {
			f.decl = s
		}
	}
	if f.Firewall, err = firewall.New(p); err != nil {
		return nil, err
	}
	status, err := k.Apply(src, kernel.ApplyOptions{})
	if err != nil {
		return nil, fmt.Errorf("the fence: %w", err)
	}
	return f, f.guards(status, interfaces)
}

// guards fails where an interface that is there is not guarded.
func (f *Fence) guards(s *kernel.Status, interfaces []string) error {
	for _, name := range interfaces {
		found := false
		for _, i := range s.Interfaces {
			if i.Name == name && i.Fault != "" {
				return fmt.Errorf("the fence: %s is not guarded: %s", name, i.Fault)
			}
			found = found || i.Name == name
		}
		if !found {
			return fmt.Errorf("the fence: the policy guards no interface %s", name)
		}
	}
	return nil
}

// Check fails where the fence is not in force any more.
func (f *Fence) Check(interfaces []string) error {
	s, policies, err := f.status()
	switch {
	case err != nil:
		return fmt.Errorf("the fence: %w", err)
	case !s.Enforcing:
		return fmt.Errorf("somebody took the fence away: %w; start the agent anew", kernel.ErrNothing)
	case !slices.Contains(policies, s.Policy):
		return fmt.Errorf("somebody put the policy %s in force in place of the fence; start the agent anew", s.Policy)
	}
	return f.guards(s, interfaces)
}

// status is the kernel's, and the names of the policies that may be in force in it: of two while the kernel may go back from one to the
// other. A status from before another policy was expected says nothing.
func (f *Fence) status() (s *kernel.Status, policies []string, err error) {
	for {
		policies, before := f.expected()
		s, err := f.Kernel.Status()
		if _, after := f.expected(); before == after {
			return s, policies, err
		}
	}
}

func (f *Fence) expected() (policies []string, change int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policies, f.change
}

func (f *Fence) expect(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.policies = names
	f.change++
}

// Open implements cluster.Door. The kernel comes first: what it does not let out the agent's
// sockets need not try.
func (f *Fence) Open(until int64, addresses ...netip.Addr) error {
	if err := f.Kernel.AddToSet(Set, until, texts(addresses)...); err != nil {
		return err
	}
	return f.own(addresses, func(s *firewall.Set, e firewall.Element) {
		e.Deadline = until
		s.Add(e)
	})
}

// Shut implements cluster.Door. Where somebody took the fence away there is no door that lets anything out,
// nor one that holds anything back: Check tells of that.
func (f *Fence) Shut(addresses ...netip.Addr) error {
	err := f.own(addresses, func(s *firewall.Set, e firewall.Element) { s.Delete(e) })
	_, kernelErr := f.Kernel.DeleteFromSet(Set, texts(addresses)...)
	if errors.Is(kernelErr, kernel.ErrNothing) || errors.Is(kernelErr, kernel.ErrNoSet) {
		kernelErr = nil
	}
	return errors.Join(err, kernelErr)
}

// Only shuts the door for all but the given addresses.
func (f *Fence) Only(addresses ...netip.Addr) error {
	list, err := f.Kernel.ListSet(Set)
	if err != nil {
		return err
	}
	var others [][]string
	for _, e := range list {
		a, err := netip.ParseAddr(e.Text[0])
		if err != nil || !slices.Contains(addresses, a) {
			others = append(others, e.Text)
		}
	}
	if len(others) == 0 {
		return nil
	}
	_, err = f.Kernel.DeleteFromSet(Set, others...)
	return err
}

func (f *Fence) own(addresses []netip.Addr, do func(*firewall.Set, firewall.Element)) (err error) {
	f.Firewall.UpdateSet(Set, func(s *firewall.Set) {
		for _, a := range addresses {
			e, bad := f.decl.Element(a.String())
			if bad != nil {
				err = bad
				continue
			}
			do(s, e)
		}
	})
	return err
}

func texts(addresses []netip.Addr) (out [][]string) {
	for _, a := range addresses {
		out = append(out, []string{a.String()})
	}
	return out
}
