package relay

import (
	"fmt"
	"os"

	"github.com/postern-fw/postern/firewall"
)

// ownPolicy is what the agent may send to clients, whatever its code does: answers that
// servers' answers were made of, in its own name.
const ownPolicy = `
policy: relay-to-clients
guard:
  - interfaces: ["*"]
rules:
  - name: own-hardware-address
    match: eth.src != iface.mac
    verdict: drop
  - name: no-option-82
    match: %s
    verdict: drop
  - name: answers
    match: udp.srcport == 67 && udp.dstport == 68 && dhcp.type == 2 && dhcp.option.dhcp in {2, 5, 6} && dhcp.ip.relay != 0.0.0.0
    verdict: accept
`

// noInfo is that nothing of what is between agent and server gets to clients. With the
// policies keep and append a client has sent option 82 itself, and it goes back.
var noInfo = map[string]string{
	"drop": "dhcp.option.type == 82", "replace": "dhcp.option.type == 82",
	"keep": "dhcp.option.type == 82 && dhcp.type == 1", "append": "dhcp.option.type == 82 && dhcp.type == 1",
}

// guard is the policy for what is sent to clients.
func (c *Config) guard() (*firewall.Policy, error) {
	name, text := "the relay's own policy", []byte(fmt.Sprintf(ownPolicy, noInfo[c.Option82.Policy]))
	if c.Policy != "" {
		var err error
		if name, text, err = readPolicy(c.Policy); err != nil {
			return nil, err
		}
	}
	p, _, err := firewall.Parse(name, text)
	return p, err
}

func readPolicy(name string) (string, []byte, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", nil, fmt.Errorf("policy: %w", err)
	}
	return name, text, nil
}
