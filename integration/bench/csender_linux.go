package main

import (
	"bufio"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed c/send.c
var sendSource string

// csenders makes senders written in C, where there is a C compiler.
type csenders struct{ program string }

func newCSenders() (*csenders, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-send-")
	if err != nil {
		return nil, err
	}
	c := &csenders{filepath.Join(dir, "send")}
	cmd := exec.Command(cc, "-O2", "-o", c.program, "-x", "c", "-")
	cmd.Stdin = strings.NewReader(sendSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("cc: %w: %s", err, out)
	}
	return c, nil
}

func (c *csenders) close() error { return os.RemoveAll(filepath.Dir(c.program)) }

// side starts one in the world. It measures itself, on the CPU that all run on.
func (c *csenders) side(w *world, cpu int, name, mode string, frame []byte) (*side, error) {
	cmd := exec.Command(c.program, mode, fmt.Sprint(w.dev.Index), fmt.Sprint(cpu), hex.EncodeToString(frame))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.Do(0, cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w.onClose(func() error { in.Close(); return cmd.Wait() })
	answers := bufio.NewReader(out)
	return &side{name: name, run: func(n int) (took time.Duration, err error) {
		if _, err = fmt.Fprintln(in, n); err != nil {
			return 0, err
		}
		if _, err = fmt.Fscanln(answers, &took); err == io.EOF {
			err = fmt.Errorf("the program ended: %w", err)
		}
		return took, err
	}}, nil
}
