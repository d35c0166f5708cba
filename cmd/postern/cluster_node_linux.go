package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/cluster/etcd"
	"github.com/postern-fw/postern/cluster/fence"
	"github.com/postern-fw/postern/cluster/policy"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/bpf"
)

// lastGood is the policy of the cluster that was put in force from the disk, if there is one, and what was wrong
// with it.
type lastGood struct {
	*policy.Saved
	fault error
}

// clusterFence puts the last good policy in force behind the fence. Where that cannot be, the fence alone is in force.
func (t *term) clusterFence(c *cluster.Config, interfaces []string) (*fence.Fence, lastGood, error) {
	saved, fault := policy.Disk(c.Policy.State).Load()
	if saved != nil {
		door, err := fence.RaiseWith(t.machine.host, c, &saved.Version, interfaces)
		if err == nil {
			return door, lastGood{saved, nil}, nil
		}
		fault = fmt.Errorf("version %d of the cluster's policy, the last good one, cannot be put in force: %w", saved.Version.Number, err)
	}
	if fault != nil {
		newLog(t.errs).Error("without the cluster's policy until etcd is reached: " + fault.Error())
	}
	door, err := fence.RaiseWith(t.machine.host, c, nil, interfaces)
	return door, lastGood{nil, fault}, err
}

// clusterNode is what takes the policy of the cluster.
func (t *term) clusterNode(c *cluster.Config, e *etcd.Election, door *fence.Fence, good lastGood, log *slog.Logger) *policy.Node {
	enforcer := &fence.Enforcer{Machine: checked{t.machine.host}, Config: c, Fence: door}
	n := &policy.Node{
		Name: c.Node, Store: &etcd.Policies{Client: e.Client, Node: c.Node, Failed: e.Failed}, Enforcer: enforcer,
		Disk: policy.Disk(c.Policy.State), Lease: e.Current, Trial: c.Policy.Trial,
		// Time for the trial, and for a node that is cut off by it to be heard of again.
		Patience: 2*c.Policy.Trial + c.Lease + 5*time.Second,
		Now:      cluster.BootTime, Log: log,
	}
	if good.Saved != nil {
		enforcer.Began(&good.Version)
	} else {
		enforcer.Began(nil)
	}
	n.Start(good.Saved, errors.Join(good.fault, n.Disk.Check()))
	return n
}

// checked is a machine that says what a policy lacks in a line.
type checked struct{ enforcer }

// Apply implements fence.Machine.
func (m checked) Apply(src kernel.Source, o kernel.ApplyOptions) (*kernel.Status, error) {
	s, err := m.enforcer.Apply(src, o)
	var wrong firewall.Diagnostics
	if errors.As(err, &wrong) && len(wrong) > 0 {
		err = fmt.Errorf("%s:%d:%d: %s", wrong[0].File, wrong[0].Line, wrong[0].Col, wrong[0].Msg)
	}
	if r := remedy(err); err != nil && r != "" && !errors.Is(err, bpf.ErrTooLarge) {
		err = fmt.Errorf("%w (remedy: %s)", err, r)
	}
	return s, err
}
