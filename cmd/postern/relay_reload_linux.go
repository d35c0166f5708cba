package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/relay"
)

// relayReloads takes the configuration over anew when it changes.
type relayReloads struct {
	t     *term
	agent *relay.Agent
	log   *slog.Logger
	file  string
	text  []byte // as it was read last
	// hangups are caught from the beginning: before the relay is ready they would end it.
	hangups chan os.Signal
}

// run does so until the context ends. It begins by telling systemd that the relay is ready.
func (r *relayReloads) run(ctx context.Context, changed <-chan struct{}) {
	r.notify(daemon.SdNotifyReady)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangups:
			r.reload(ctx, true)
		case <-changed:
			r.reload(ctx, false)
		}
	}
}

// reload takes the file over, if it has changed or must be anyway.
func (r *relayReloads) reload(ctx context.Context, anyway bool) {
	text, err := os.ReadFile(r.file)
	if !anyway && (err != nil || bytes.Equal(text, r.text)) {
		return // what is gone for a moment comes again, or SIGHUP asks for it
	}
	r.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic()/1000))
	defer r.notify(daemon.SdNotifyReady)
	var c *relay.Config
	if err == nil {
		r.text = text
		c, err = relay.ParseConfig(r.file, text)
	}
	if err == nil {
		err = r.agent.Reload(ctx, c)
	}
	if err == nil {
		r.log.Info("configuration taken over", "file", r.file)
		r.notify("STATUS=serving")
		return
	}
	var wrong firewall.Diagnostics
	if errors.As(err, &wrong) {
		fmt.Fprintln(r.t.errs, wrong.Error())
		err = errors.New("it is wrong")
	}
	r.log.Error("configuration not taken over, the one before stays as it is: "+err.Error(), "file", r.file)
	r.notify("STATUS=" + r.file + " was not taken over, the configuration before stays as it is")
}

// notify tells systemd, if that started us.
func (r *relayReloads) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		r.log.Warn("telling systemd: " + err.Error())
	}
}
