package relay

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/message"
)

// The fields of templates. A circuit ID has to tell circuits apart, whoever asks there; a
// remote ID may also name the client.
var (
	circuitFields = []string{"iface", "index", "vlan", "mac", "host", "address"}
	remoteFields  = append([]string{"client"}, circuitFields...)
)

// circuit is a network of clients: an interface and a VLAN on it.
type circuit struct {
	port *port
	binding.Place
	config *Interface
	agent  *Config // of which config is a part
	// address is the agent's towards clients, giaddr the one towards servers.
	address, giaddr uint32
	servers         []uint32
	id              string
	// remote is the template of the remote ID, filled but for {client}.
	remote string
	// until is how long answers may name it although another is in its place: an instant of
	// CLOCK_BOOTTIME, 0 for the one in force.
	until int64
}

// checkTemplate refuses what cannot be filled.
func checkTemplate(template string, fields []string) error {
	rest := template
	for {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			break
		}
		name, after, ok := strings.Cut(after, "}")
		if !ok || !slices.Contains(fields, name) {
			return fmt.Errorf("%q has a field {%s; there are {%s}", template, name, strings.Join(fields, "}, {"))
		}
		rest = after
	}
	return nil
}

// newCircuit fills the templates.
func (c *Config) newCircuit(ifi *net.Interface, n *Interface, address uint32) (*circuit, error) {
	out := &circuit{Place: binding.Place{Interface: ifi.Name, VLAN: n.VLAN}, config: n, agent: c, address: address, giaddr: uint32(n.GIAddr)}
	if out.giaddr == 0 {
		out.giaddr = address
	}
	if out.giaddr == 0 && c.Mode == ModeRelay {
		return nil, fmt.Errorf("%s has no IPv4 address; give it one, or name one as `address`", out.Place)
	}
	servers := n.Servers
	if servers == nil {
		servers = c.Servers
	}
	for _, s := range servers {
		out.servers = append(out.servers, uint32(s))
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("{iface}", ifi.Name, "{index}", strconv.Itoa(ifi.Index), "{vlan}", strconv.Itoa(int(n.VLAN)),
		"{mac}", ifi.HardwareAddr.String(), "{host}", host, "{address}", binding.IPv4(address).String())
	out.id, out.remote = fill.Replace(c.Option82.Circuit), fill.Replace(c.Option82.Remote)
	if len(out.id)+len(out.remote) > 200 {
		return nil, fmt.Errorf("%s: circuit ID and remote ID have more than 200 bytes: %q, %q", out.Place, out.id, out.remote)
	}
	return out, nil
}

// remoteID appends the remote ID for a client.
func (c *circuit) remoteID(dst []byte, mac binding.MAC) []byte {
	before, after, ok := strings.Cut(c.remote, "{client}")
	dst = append(dst, before...)
	if !ok {
		return dst
	}
	const digits = "0123456789abcdef"
	for i, b := range mac {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return append(dst, after...)
}

// info appends the agent's sub-options for a client.
func (c *circuit) info(dst []byte, mac binding.MAC, override, unicast bool) []byte {
	dst = append(append(dst, message.SubCircuitID, byte(len(c.id))), c.id...)
	if c.remote != "" {
		at := len(dst)
		dst = c.remoteID(append(dst, message.SubRemoteID, 0), mac)
		dst[at+1] = byte(len(dst) - at - 2)
	}
	if c.giaddr != c.address {
		dst = message.AppendAddress(dst, message.SubLinkSelection, c.address)
	}
	if override {
		dst = message.AppendFlags(message.AppendAddress(dst, message.SubServerID, c.address), unicast)
	}
	return dst
}
