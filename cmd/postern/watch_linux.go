package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// fileWatch tells when a file may have changed. It watches the directory, since editors
// put a new file in the old one's place, and that of the file behind a symbolic link,
// which in a ConfigMap is exchanged as a whole.
type fileWatch struct {
	*fsnotify.Watcher
	file    string
	changed chan struct{}
}

// A change is told when it was quiet for a while, so that a file is not read while it is
// being written, and after some time in any case.
const (
	quiet    = 100 * time.Millisecond
	patience = 2 * time.Second
)

func watchFile(file string) (*fileWatch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", file, err)
	}
	f := &fileWatch{w, file, make(chan struct{}, 1)}
	if err := f.directories(); err != nil {
		w.Close()
		return nil, fmt.Errorf("watching %s: %w", file, err)
	}
	f.changed <- struct{}{} // what changed since the file was read was not seen
	return f, nil
}

// directories adds those that are not watched yet.
func (f *fileWatch) directories() error {
	err := f.Add(filepath.Dir(f.file))
	if target, broken := filepath.EvalSymlinks(f.file); broken == nil {
		err = errors.Join(err, f.Add(filepath.Dir(target)))
	}
	return err
}

func (f *fileWatch) run(ctx context.Context, log *slog.Logger) {
	var due <-chan time.Time
	var latest time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.Events:
			if due == nil {
				latest = time.Now().Add(patience)
			}
			due = time.After(min(quiet, time.Until(latest)))
		case err := <-f.Errors:
			log.Warn("watching the policy file: "+err.Error(), "file", f.file)
			due = time.After(quiet) // what was not seen may have been a change
		case <-due:
			due = nil
			if err := f.directories(); err != nil {
				log.Warn("the directory of the policy file cannot be watched any more; SIGHUP reloads: "+err.Error(), "file", f.file)
			}
			select {
			case f.changed <- struct{}{}:
			default: // one is waiting
			}
		}
	}
}
