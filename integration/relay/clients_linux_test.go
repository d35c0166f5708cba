package relay

import (
	"testing"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestServersAndClients: each client gets an address of its segment from each server, and
// the agent knows it when the client does.
func TestServersAndClients(t *testing.T) {
	t.Parallel()
	for _, v := range servers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, len(labtest.DHCPClients))
			v.serve(s, 600)
			s.relay(s.config(allSegments))
			for i, client := range labtest.DHCPClients {
				p := s.segments[i]
				client.Start(t, p, clientEnd, int(labtest.Patience.Seconds()), nil).Says(t, "configured 10."+string(rune('1'+i))+".")
				found := false
				for _, b := range s.bindings() {
					found = found || b.Interface == p.Ifi[agentEnd].Name && b.MAC.String() == p.Ifi[clientEnd].HardwareAddr.String() && b.Server.String() == "192.0.2.53"
				}
				if !found {
					t.Errorf("%s has a lease, and the agent knows: %+v", client.Name, s.bindings())
				}
			}
		})
	}
}
