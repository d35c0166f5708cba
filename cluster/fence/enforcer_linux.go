package fence

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/cluster/policy"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel"
)

// Machine is what an Enforcer uses of kernel.Host.
type Machine interface {
	Kernel
	Confirm() error
	Rollback() error
	Flush() error
	Rules() ([]kernel.Rule, error)
}

// Enforcer puts the policy of the cluster in force, behind the fence where the node has one.
type Enforcer struct {
	Machine
	Config *cluster.Config
	// Fence is nil where the node has no addresses.
	Fence *Fence

	now, before string // names of the policies, and what the kernel goes back to
}

var _ policy.Enforcer = (*Enforcer)(nil)

// Began says what is in force before the first Apply; nil is the fence alone.
func (e *Enforcer) Began(v *policy.Version) {
	e.now = ownName
	if v == nil {
		return
	}
	if p, _, err := firewall.Parse("", []byte(v.Text)); err == nil {
		e.now = p.Name
	}
}

// ownName is that of the agent's own policy.
const ownName = "postern-agent"

// Source is what is put in force of a version, nil for none.
func Source(c *cluster.Config, v *policy.Version) (kernel.Source, error) {
	if v == nil {
		return kernel.Source{Name: "postern-agent.yaml", Text: Policy(c)}, nil
	}
	src := kernel.Source{Name: fmt.Sprintf("cluster policy, version %d", v.Number)}
	var err error
	src.Text, err = Compose(c, src.Name, []byte(v.Text))
	return src, err
}

// RaiseWith puts a version of the cluster's policy in force behind the fence; nil is the fence alone. A node without
// addresses has no fence, and gets nil.
func RaiseWith(k Kernel, c *cluster.Config, v *policy.Version, interfaces []string) (*Fence, error) {
	if v == nil && len(c.Addresses) == 0 {
		return nil, nil
	}
	src, err := Source(c, v)
	if err != nil {
		return nil, err
	}
	if len(c.Addresses) == 0 {
		_, err := k.Apply(src, kernel.ApplyOptions{})
		return nil, err
	}
	// The agent's own sockets send what the fence is about, and nothing else.
	own, _, err := firewall.Parse(ownName, Policy(c))
	if err != nil {
		return nil, err
	}
	name := own.Name
	if v != nil {
		p, _, err := firewall.Parse(src.Name, src.Text)
		if err != nil {
			return nil, err
		}
		name = p.Name
	}
	return raise(k, own, name, src, interfaces)
}

// Apply implements policy.Enforcer.
func (e *Enforcer) Apply(v *policy.Version, trial time.Duration) error {
	if v == nil && e.Fence == nil {
		return e.Flush()
	}
	src, err := Source(e.Config, v)
	if err != nil {
		return err
	}
	p, _, err := firewall.Parse(src.Name, src.Text)
	if err != nil {
		return err
	}
	e.expect(p.Name, e.now)
	status, err := e.Machine.Apply(src, kernel.ApplyOptions{Confirm: trial})
	if err != nil {
		e.expect(e.now)
		return err
	}
	if err := unguarded(status); err != nil && trial > 0 {
		err = errors.Join(err, e.Machine.Rollback())
		e.expect(e.now)
		return err
	}
	e.before, e.now = e.now, p.Name
	if trial == 0 {
		e.expect(e.now)
	}
	return nil
}

// unguarded fails where an interface that is there is not guarded as the policy wants it.
func unguarded(s *kernel.Status) error {
	var list []string
	for _, i := range s.Interfaces {
		if i.Index != 0 && i.Fault != "" {
			list = append(list, i.Name+" is not guarded: "+i.Fault)
		}
	}
	if list == nil {
		return nil
	}
	return errors.New(strings.Join(list, "; "))
}

// Confirm implements policy.Enforcer.
func (e *Enforcer) Confirm() error {
	err := e.Machine.Confirm()
	if err == nil {
		e.expect(e.now)
	}
	return err
}

// Rollback implements policy.Enforcer.
func (e *Enforcer) Rollback() error {
	err := e.Machine.Rollback()
	e.now, e.before = e.before, e.now
	if e.expect(e.now); err != nil && !errors.Is(err, kernel.ErrNotPending) {
		e.expect(e.now, e.before) // the kernel does it when the time is over
	}
	return err
}

// Status implements policy.Enforcer. What somebody else put in force is a warning.
func (e *Enforcer) Status() (*kernel.Status, error) {
	s, err := e.Machine.Status()
	if err == nil && e.Fence == nil && s.Enforcing && s.Policy != e.now && s.Policy != e.before {
		s.Warnings = append(s.Warnings, fmt.Sprintf("somebody put the policy %s in force in place of the cluster's; start the agent anew", s.Policy))
	}
	return s, err
}

func (e *Enforcer) expect(names ...string) {
	if e.Fence != nil {
		e.Fence.expect(names...)
	}
}
