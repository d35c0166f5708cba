package main

import (
	"bufio"
	"bytes"
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
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-fw/postern/relay"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/lease"
)

func newBindings(t *term) *cobra.Command {
	b := bindings{t: t}
	cmd := &cobra.Command{
		Use:   "bindings COMMAND --config FILE",
		Short: "See and change who holds which address",
		Long: `bindings shows what "postern relay" has learned: who holds which IPv4 address, where
and until when. It asks the relay that runs with the configuration, or reads its
database if none runs.`,
		Args: cobra.NoArgs,
		RunE: t.helpAlone,
	}
	cmd.PersistentFlags().StringVarP(&b.config, "config", "c", "", "the relay's configuration `FILE`")
	_ = cmd.MarkPersistentFlagRequired("config") // the flag is there
	cmd.AddCommand(b.newList(), b.newShow(), b.newDelete(), b.newImport(), b.newExport())
	return cmd
}

type bindings struct {
	t      *term
	config string
	asJSON bool
	format string
	place  binding.Place
}

func (b *bindings) newList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "All bindings, by address", Args: cobra.NoArgs,
		Example: "  postern bindings list -c relay.yaml --json",
		RunE:    func(*cobra.Command, []string) error { return b.list(func(*relay.Item) bool { return true }, false) },
	}
	cmd.Flags().BoolVar(&b.asJSON, "json", false, "one object a line")
	return cmd
}

func (b *bindings) newShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show WHO", Short: "The bindings of an address, a hardware address or an interface", Args: cobra.ExactArgs(1),
		Long:    "show lists the bindings of an address, a hardware address or an interface. The exit code is 1 if there are none.",
		Example: "  postern bindings show -c relay.yaml 10.1.0.100",
		RunE: func(_ *cobra.Command, args []string) error {
			return b.list(func(i *relay.Item) bool {
				return slices.Contains([]string{i.IP.String(), i.MAC.String(), i.Interface}, strings.ToLower(args[0])) || i.Interface == args[0]
			}, true)
		},
	}
	cmd.Flags().BoolVar(&b.asJSON, "json", false, "one object a line")
	return cmd
}

func (b *bindings) newDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete IP...", Short: "Forget bindings", Args: cobra.MinimumNArgs(1),
		Long: `delete forgets the bindings of addresses, which the firewall refuses to their clients
from then on. The servers' leases stay. The exit code is 1 if an address has none.`,
		RunE: func(_ *cobra.Command, args []string) error { return b.delete(args) },
	}
}

func (b *bindings) newImport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Take bindings from a server's lease file", Args: cobra.ExactArgs(1),
		Long: `import takes over the leases in force of a lease file: ISC dhcpd's dhcpd.leases, Kea's memfile
(CSV) or dnsmasq's. They do not say where clients are: --interface does. json is what "export
--format json" has written.`,
		Example: "  postern bindings import -c relay.yaml --format isc --interface veth1 dhcpd.leases",
		RunE:    func(_ *cobra.Command, args []string) error { return b.take(args[0]) },
	}
	b.formatFlag(cmd)
	cmd.Flags().StringVar(&b.place.Interface, "interface", "", "where the clients are")
	cmd.Flags().Uint16Var(&b.place.VLAN, "vlan", 0, "the VLAN they are on")
	return cmd
}

func (b *bindings) newExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export", Short: "Write bindings as a server's lease file", Args: cobra.NoArgs,
		Example: "  postern bindings export -c relay.yaml --format dnsmasq >dnsmasq.leases",
		RunE:    func(*cobra.Command, []string) error { return b.export() },
	}
	b.formatFlag(cmd)
	return cmd
}

func (b *bindings) formatFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.format, "format", "json", "isc, kea, dnsmasq or json")
}

// book is where the bindings are: with a relay that runs, or in its database.
type book interface {
	all() ([]relay.Item, error)
	remove(binding.IPv4) error
	add([]relay.Item) error
	Close() error
}

// errNoBinding is matched where an address has none.
var errNoBinding = errors.New("no binding")

func (b *bindings) open() (book, error) {
	c, _, err := readRelayConfig(b.t, b.config)
	if err != nil {
		return nil, err
	}
	store, err := binding.Open(c.Database)
	if errors.Is(err, binding.ErrInUse) {
		return &runningRelay{socket: c.Control}, nil
	}
	if err != nil {
		return nil, &exitError{exitMachine, err}
	}
	return database{store, c.Static}, nil
}

// use opens the book for fn.
func (b *bindings) use(fn func(book) error) error {
	k, err := b.open()
	if err != nil {
		return err
	}
	defer k.Close()
	err = fn(k)
	var exit *exitError
	switch {
	case err == nil, errors.As(err, &exit):
		return err
	case errors.Is(err, errNoBinding):
		return &exitError{exitNo, err}
	}
	return &exitError{exitMachine, err}
}

// list shows those that are wanted, of which there have to be some if needed.
func (b *bindings) list(want func(*relay.Item) bool, needed bool) error {
	return b.use(func(k book) error {
		all, err := k.all()
		if err != nil {
			return err
		}
		n, out := 0, bufio.NewWriter(b.t.out)
		enc := newJSON(out)
		for i := range all {
			if !want(&all[i]) {
				continue
			}
			n++
			if b.asJSON {
				err = enc.Encode(&all[i])
			} else {
				_, err = fmt.Fprintln(out, bindingLine(&all[i]))
			}
			if err != nil {
				return ioError(err)
			}
		}
		if err := out.Flush(); err != nil {
			return ioError(err)
		}
		if n == 0 && needed {
			return errNoBinding
		}
		return nil
	})
}

// bindingLine is for people.
func bindingLine(i *relay.Item) string {
	place := binding.Place{Interface: i.Interface, VLAN: i.VLAN}
	until := "for ever"
	switch {
	case i.Static:
		until = "static"
	case i.Expiry != 0:
		until = "until " + time.Unix(0, i.Expiry).Format(time.DateTime)
	}
	return fmt.Sprintf("%-15s  %s  %-16s  %s", i.IP, i.MAC, graphic(place.String()), until)
}

func (b *bindings) delete(addresses []string) error {
	var list []binding.IPv4
	for _, text := range addresses {
		var ip binding.IPv4
		if err := ip.UnmarshalText([]byte(text)); err != nil {
			return usageError("%w", err)
		}
		list = append(list, ip)
	}
	return b.use(func(k book) error {
		for _, ip := range list {
			if err := k.remove(ip); err != nil {
				return fmt.Errorf("%s: %w", ip, err)
			}
		}
		return nil
	})
}

func (b *bindings) take(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return fileError(err)
	}
	defer file.Close()
	items, err := b.parse(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return b.use(func(k book) error {
		if err := k.add(items); err != nil {
			return err
		}
		_, err := fmt.Fprintf(b.t.out, "%d bindings\n", len(items))
		return ioError(err)
	})
}

func (b *bindings) parse(r io.Reader) (items []relay.Item, err error) {
	if b.format == "json" {
		for d := json.NewDecoder(r); ; {
			var i relay.Item
			if err := d.Decode(&i); errors.Is(err, io.EOF) {
				return items, nil
			} else if err != nil {
				return nil, &exitError{exitNo, err}
			}
			items = append(items, i)
		}
	}
	format, err := lease.Named(b.format)
	if err != nil {
		return nil, usageError("--format: %w", err)
	}
	if b.place.Interface == "" {
		return nil, usageError("--interface: name the one behind which the clients of the file are")
	}
	list, err := format.Read(r, b.place)
	if err != nil {
		return nil, &exitError{exitNo, err}
	}
	for i := range list {
		items = append(items, relay.NewItem(&list[i]))
	}
	return items, nil
}

func (b *bindings) export() error {
	if b.format == "json" {
		b.asJSON = true
		return b.list(func(*relay.Item) bool { return true }, false)
	}
	format, err := lease.Named(b.format)
	if err != nil {
		return usageError("--format: %w", err)
	}
	return b.use(func(k book) error {
		all, err := k.all()
		if err != nil {
			return err
		}
		var list []binding.Binding
		for i := range all {
			list = append(list, all[i].Binding())
		}
		return ioError(format.Write(b.t.out, list))
	})
}

// database is the bindings of a relay that does not run.
type database struct {
	*binding.Store
	static []relay.Static
}

func (d database) all() (list []relay.Item, err error) {
	err = d.Load(func(b binding.Binding) { list = append(list, relay.NewItem(&b)) })
	slices.SortFunc(list, func(x, y relay.Item) int { return cmp.Compare(x.IP, y.IP) })
	return list, err
}

func (d database) remove(ip binding.IPv4) error {
	for _, s := range d.static {
		if s.IP == ip {
			return errors.New("it is bound in the configuration")
		}
	}
	var gone []binding.Change
	err := d.Load(func(b binding.Binding) {
		if b.IP == ip {
			gone = append(gone, binding.Change{Binding: b, Gone: true})
		}
	})
	if err == nil && gone == nil {
		return errNoBinding
	}
	return errors.Join(err, d.Commit(gone))
}

func (d database) add(items []relay.Item) error {
	var list []binding.Change
	for i := range items {
		list = append(list, binding.Change{Binding: items[i].Binding()})
	}
	return d.Commit(list)
}

// runningRelay is asked by its control socket.
type runningRelay struct{ socket string }

func (*runningRelay) Close() error { return nil }

func (r *runningRelay) do(method, path string, body io.Reader) (io.ReadCloser, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.socket)
	}}}
	q, err := http.NewRequest(method, "http://relay"+path, body)
	if err != nil {
		return nil, err
	}
	a, err := c.Do(q)
	if err != nil {
		return nil, fmt.Errorf("the relay that runs does not answer: %w", err)
	}
	if a.StatusCode == http.StatusOK {
		return a.Body, nil
	}
	defer a.Body.Close()
	why, _ := io.ReadAll(io.LimitReader(a.Body, 4096)) // what there is of it
	if a.StatusCode == http.StatusNotFound {
		return nil, errNoBinding
	}
	return nil, errors.New(strings.TrimSpace(string(why)))
}

func (r *runningRelay) all() (list []relay.Item, err error) {
	body, err := r.do(http.MethodGet, "/bindings", nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var i relay.Item
		if err := d.Decode(&i); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
}

func (r *runningRelay) remove(ip binding.IPv4) error {
	body, err := r.do(http.MethodDelete, "/bindings/"+ip.String(), nil)
	if err != nil {
		return err
	}
	return body.Close()
}

func (r *runningRelay) add(items []relay.Item) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i := range items {
		if err := enc.Encode(&items[i]); err != nil {
			return err
		}
	}
	body, err := r.do(http.MethodPost, "/bindings", &b)
	if err != nil {
		return err
	}
	return body.Close()
}
