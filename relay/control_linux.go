package relay

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/postern-fw/postern/relay/binding"
)

// Item is a binding as it is written for programs: one JSON object a line.
type Item struct {
	IP        binding.IPv4 `json:"ip"`
	MAC       binding.MAC  `json:"mac"`
	Interface string       `json:"interface"`
	VLAN      uint16       `json:"vlan,omitempty"`
	// ClientID is option 61 in base64.
	ClientID []byte       `json:"client_id,omitempty"`
	Server   binding.IPv4 `json:"server"`
	// Expiry is in nanoseconds since 1970; 0 is never.
	Expiry int64 `json:"expiry,omitempty"`
	Static bool  `json:"static,omitempty"`
}

// NewItem writes a binding down.
func NewItem(b *binding.Binding) Item {
	return Item{b.IP, b.MAC, b.Interface, b.VLAN, []byte(b.ClientID), b.Server, b.Expiry, b.Static}
}

// Binding reads it.
func (i *Item) Binding() binding.Binding {
	b := binding.Binding{IP: i.IP, MAC: i.MAC, Place: binding.Place{Interface: i.Interface, VLAN: i.VLAN}, ClientID: string(i.ClientID), Server: i.Server}
	b.ExpiresAt(i.Expiry)
	return b
}

// Listen makes the control socket.
func (a *Agent) Listen() (net.Listener, error) { return listenControl(a.config.Load().Control) }

// Serve answers `postern bindings` on the control socket until the context ends.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bindings", a.list)
	mux.HandleFunc("POST /bindings", a.take)
	mux.HandleFunc("DELETE /bindings/{ip}", a.delete)
	mux.HandleFunc("GET /counters", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(a.Counters()) })
	server := &http.Server{Handler: mux}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// listenControl makes the socket, for root alone. The database is locked, so that a socket that
// is there was left behind.
func listenControl(path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
		_ = os.Remove(path)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

func (a *Agent) list(w http.ResponseWriter, _ *http.Request) {
	all := a.table.All()
	slices.SortFunc(all, func(x, y binding.Binding) int { return cmp.Compare(x.IP, y.IP) })
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for i := range all {
		if err := enc.Encode(NewItem(&all[i])); err != nil {
			return // the reader is gone
		}
	}
	_ = out.Flush()
}

// take imports bindings.
func (a *Agent) take(w http.ResponseWriter, r *http.Request) {
	d, n := json.NewDecoder(r.Body), 0
	for {
		var many []binding.Change
		var err error
		for err == nil && len(many) < maxTogether {
			var i Item
			if err = d.Decode(&i); err == nil {
				many = append(many, binding.Change{Binding: i.Binding()})
			}
		}
		if e := a.ledger.record(r.Context(), entry{many: many}); e != nil {
			http.Error(w, e.Error(), http.StatusInsufficientStorage)
			return
		}
		n += len(many)
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(w, n)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
}

func (a *Agent) delete(w http.ResponseWriter, r *http.Request) {
	var ip binding.IPv4
	if err := ip.UnmarshalText([]byte(r.PathValue("ip"))); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b, ok := a.table.Get(ip)
	switch {
	case !ok:
		http.Error(w, "no binding of "+ip.String(), http.StatusNotFound)
	case b.Static:
		http.Error(w, ip.String()+" is bound in the configuration", http.StatusConflict)
	default:
		if err := a.ledger.record(r.Context(), entry{many: []binding.Change{{Binding: b, Gone: true}}}); err != nil {
			http.Error(w, err.Error(), http.StatusInsufficientStorage)
		}
	}
}
