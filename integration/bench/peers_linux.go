package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// command runs a program in the world's namespace.
func (w *world) command(stdin, name string, args ...string) error {
	return w.Do(0, func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out[:min(len(out), 500)]))
		}
		return nil
	})
}

// nft puts a ruleset in force.
func (w *world) nft(ruleset string) error { return w.command(ruleset, "nft", "-f", "-") }

// clsBPF attaches a classic BPF program to tc egress.
func (w *world) clsBPF(bytecode string) error {
	f, err := os.CreateTemp("", "bench-bytecode-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(bytecode); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := w.command("", "tc", "qdisc", "add", "dev", "sink", "clsact"); err != nil {
		return err
	}
	return w.command("", "tc", "filter", "add", "dev", "sink", "egress", "bpf", "da", "bytecode-file", f.Name())
}

// contender is one way to have a ruleset in force on a device.
type contender struct {
	name string
	most ruleset // rules that it takes
	slow bool    // many rules take long
	put  func(*world, ruleset) error
}

var contenders = []contender{
	{"postern by tc", 10_000, false, func(w *world, r ruleset) error { return w.guard(r.postern("tc", "sink")) }},
	{"postern by the gate", 10_000, false, func(w *world, r ruleset) error { return w.guard(r.postern("gate", "sink")) }},
	{"nft, a rule each", 10_000, true, func(w *world, r ruleset) error { return w.nft(r.nftLinear()) }},
	{"nft, a set", 10_000, false, func(w *world, r ruleset) error { return w.nft(r.nftSet()) }},
	{"nft, a verdict map", 10_000, false, func(w *world, r ruleset) error { return w.nft(r.nftMap()) }},
	{"tc, classic BPF", 2_000, false, func(w *world, r ruleset) error { return w.clsBPF(r.classic()) }},
}
