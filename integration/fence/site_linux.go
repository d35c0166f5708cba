package fence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel"
)

// Options say what a site is like.
type Options struct {
	Postern, Etcd  string // the programs
	Nodes, Members int
	// Config is added to each node's configuration, or overrides what stands there.
	Config string
	// Flags are etcd's.
	Flags []string
}

// Site is a segment with nodes and a client, and a network besides where the nodes reach etcd.
type Site struct {
	Options
	Dir      string
	Hub      *lab.Namespace // all bridges
	Client   *lab.Namespace
	Nodes    []*Node
	Members  []*Process
	member   []*lab.Namespace
	Observer *lab.Observer
	bpffs    string
	close    []func()
}

// Node is one of n1, n2, …
type Node struct {
	Name    string
	NS      *lab.Namespace
	Port    *net.Interface // at the segment's bridge
	Agent   *Process
	site    *Site
	run     string
	by      []string // what its agent is started by, if anything
	Config  string   // its file
	Control string   // name of its link to etcd, at the bridge
}

const hubAddress = "10.9.0.254"

func memberAddress(i int) string { return fmt.Sprintf("10.9.0.%d", 101+i) }

// New makes a site with its etcd, and no agents yet. The caller closes it.
func New(o Options) (s *Site, err error) {
	s = &Site{Options: o}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.Dir, err = scratch(); err != nil {
		return s, err
	}
	var unmount func()
	if s.bpffs, unmount, err = lab.BPFFS(); err != nil {
		return s, err
	}
	s.close = append(s.close, unmount)
	if err := s.wire(); err != nil {
		return s, err
	}
	for i := range o.Members {
		s.Members = append(s.Members, nil)
		if err := s.StartMember(i); err != nil {
			return s, err
		}
	}
	return s, s.ready()
}

func (s *Site) wire() (err error) {
	if s.Hub, err = lab.NewNamespace(); err != nil {
		return err
	}
	if s.Client, err = lab.NewNamespace(); err != nil {
		return err
	}
	if err := s.Hub.Bridge("segment", ""); err != nil {
		return err
	}
	if err := s.Hub.Bridge("control", hubAddress+"/24"); err != nil {
		return err
	}
	// An island is for those who are cut off together.
	if err := s.Hub.Bridge("island", ""); err != nil {
		return err
	}
	for i := range s.Options.Members {
		ns, err := lab.NewNamespace()
		if err != nil {
			return err
		}
		s.member = append(s.member, ns)
		if _, err := s.Hub.Plug("control", fmt.Sprintf("m%d", i), ns, "etcd0", memberAddress(i)+"/24"); err != nil {
			return err
		}
	}
	if _, err := s.Hub.Plug("segment", "client", s.Client, "eth0", "10.8.0.200/16"); err != nil {
		return err
	}
	var ports []*net.Interface
	for i := range s.Options.Nodes {
		n := &Node{Name: fmt.Sprintf("n%d", i+1), site: s, Control: fmt.Sprintf("etcd%d", i+1)}
		s.Nodes = append(s.Nodes, n)
		if n.NS, err = lab.NewNamespace(); err != nil {
			return err
		}
		if n.Port, err = s.Hub.Plug("segment", n.Name, n.NS, "eth0", fmt.Sprintf("10.8.0.%d/16", i+1)); err != nil {
			return err
		}
		if _, err = s.Hub.Plug("control", n.Control, n.NS, "etcd0", fmt.Sprintf("10.9.0.%d/24", i+1)); err != nil {
			return err
		}
		n.run, n.Config = join(s.Dir, n.Name), join(s.Dir, n.Name+".yaml")
		if err := os.Mkdir(n.run, 0o700); err != nil {
			return err
		}
		if err := n.Configure(s.Options.Config); err != nil {
			return err
		}
		ports = append(ports, n.Port)
	}
	s.Observer, err = s.Hub.Observe(ports...)
	return err
}

// Configure writes the node's configuration.
func (n *Node) Configure(more string) error {
	text := fmt.Sprintf("node: %s\ninterface: eth0\n", n.Name)
	if n.site.Options.Members > 0 {
		text += fmt.Sprintf("etcd: {endpoints: [%s]}\n", strings.Join(n.site.Endpoints(), ", "))
	}
	return os.WriteFile(n.Config, []byte(text+more), 0o600)
}

// Endpoints are those of etcd.
func (s *Site) Endpoints() (list []string) {
	for i := range s.Options.Members {
		list = append(list, fmt.Sprintf("http://%s:2379", memberAddress(i)))
	}
	return list
}

// StartMember starts a server of etcd, with the data it had.
func (s *Site) StartMember(i int) (err error) {
	var cluster []string
	peer := func(i int) string { return fmt.Sprintf("http://%s:2380", memberAddress(i)) }
	for j := range s.Options.Members {
		cluster = append(cluster, fmt.Sprintf("m%d=%s", j, peer(j)))
	}
	at := s.Endpoints()[i]
	args := append([]string{"--name", fmt.Sprintf("m%d", i), "--data-dir", join(s.Dir, fmt.Sprintf("m%d", i)),
		"--listen-client-urls", at, "--advertise-client-urls", at, "--listen-peer-urls", peer(i), "--initial-advertise-peer-urls", peer(i),
		"--initial-cluster", strings.Join(cluster, ","), "--unsafe-no-fsync", "--log-level", "warn"}, s.Flags...)
	s.Members[i], err = start(s.member[i], join(s.Dir, fmt.Sprintf("m%d.log", i)), s.Etcd, args...)
	return err
}

// Island moves ports from the network that leads to etcd to an island, or back.
func (s *Site) Island(on bool, ports ...string) error {
	name := "control"
	if on {
		name = "island"
	}
	return s.Hub.Do(func() error {
		bridge, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, p := range ports {
			link, err := netlink.LinkByName(p)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link, bridge); err != nil {
				return err
			}
		}
		return nil
	})
}

// Ask has a client of etcd do something, in the hub.
func (s *Site) Ask(fn func(context.Context, *clientv3.Client) error) error {
	c, err := s.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return fn(ctx, c)
}

// Dial makes a client whose connections begin in the hub, of some servers or of all.
func (s *Site) Dial(endpoints ...string) (*clientv3.Client, error) {
	if len(endpoints) == 0 {
		endpoints = s.Endpoints()
	}
	return clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, at string) (conn net.Conn, err error) {
			err = s.Hub.Do(func() error {
				conn, err = new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(at, "http://"))
				return err
			})
			return conn, err
		})}})
}

func (s *Site) ready() error {
	if s.Options.Members == 0 {
		return nil
	}
	err := s.Ask(func(ctx context.Context, c *clientv3.Client) error {
		for {
			once, cancel := context.WithTimeout(ctx, time.Second)
			_, err := c.Get(once, "/")
			cancel()
			if err == nil || ctx.Err() != nil {
				return err
			}
		}
	})
	if err != nil {
		return fmt.Errorf("etcd does not answer: %w\n%s", err, s.Members[0].Said())
	}
	return nil
}

// Leader is the number of the member that leads.
func (s *Site) Leader() (leader int, err error) {
	err = s.Ask(func(ctx context.Context, c *clientv3.Client) error {
		for i, at := range s.Endpoints() {
			once, cancel := context.WithTimeout(ctx, time.Second)
			r, err := c.Status(once, at)
			cancel()
			if err == nil && r.Leader == r.Header.MemberId {
				leader = i
				return nil
			}
		}
		return errors.New("etcd has no leader")
	})
	return leader, err
}

// Start starts the node's agent.
func (n *Node) Start() (err error) {
	_ = os.Remove(n.log())
	n.Agent, err = n.command(n.log(), n.by, "agent", "--config", n.Config)
	return err
}

func (n *Node) log() string { return join(n.site.Dir, n.Name+".log") }

// command starts postern at the node: with the site's bpffs and a /run of the node's own.
func (n *Node) command(log string, by []string, args ...string) (*Process, error) {
	const script = `mount --bind "$1" /sys/fs/bpf && mount --bind "$2" /run && shift 2 && exec "$@"`
	return start(n.NS, log, "unshare", slices.Concat([]string{"--mount", "sh", "-c", script, "sh", n.site.bpffs, n.run}, by, []string{n.site.Postern}, args)...)
}

// Postern runs a command at the node to its end.
func (n *Node) Postern(args ...string) (code int, said string, err error) {
	f, err := os.CreateTemp(n.site.Dir, "command-")
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	p, err := n.command(f.Name(), nil, args...)
	if err != nil {
		return 0, "", err
	}
	code = p.Wait()
	return code, p.Said(), nil
}

// Host is what is enforced at the node.
func (n *Node) Host() kernel.Host {
	return kernel.Host{Root: join(n.site.bpffs, "postern"), NetNS: int(n.NS.NS)}
}

// Has says whether an address is on the node's interface.
func (n *Node) Has(a netip.Addr) (has bool, err error) {
	err = n.NS.Do(func() error {
		out, err := exec.Command("ip", "-o", "addr", "show", "dev", "eth0").Output()
		has = strings.Contains(string(out), " "+a.String()+"/32 ")
		return err
	})
	return has, err
}

// NodeOf is the name of the node at a port.
func (s *Site) NodeOf(port int) string {
	for _, n := range s.Nodes {
		if n.Port.Index == port {
			return n.Name
		}
	}
	return ""
}

// Close ends all.
func (s *Site) Close() {
	for _, n := range s.Nodes {
		if n.Agent != nil {
			n.Agent.Kill()
		}
	}
	for _, m := range s.Members {
		if m != nil {
			m.Kill()
		}
	}
	if s.Observer != nil {
		_ = s.Observer.Close()
	}
	for _, n := range s.Nodes {
		if n.NS != nil {
			n.NS.Close()
		}
	}
	for _, ns := range append(s.member, s.Client, s.Hub) {
		if ns != nil {
			ns.Close()
		}
	}
	for _, fn := range s.close {
		fn()
	}
	if s.Dir != "" {
		_ = os.RemoveAll(s.Dir)
	}
}

// address puts an address on the node's interface.
func (n *Node) address(a netip.Addr) error {
	return n.NS.Do(func() error {
		out, err := exec.Command("ip", "addr", "add", a.String()+"/32", "dev", "eth0").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// spoken is how many frames came from the node for virtual addresses since an instant.
func (s *Site) spoken(n *Node, since int64) (count int) {
	for _, f := range s.Observer.Since(since) {
		if f.Port == n.Port.Index && f.Sender != netip.IPv4Unspecified() && f.Sender.As4()[2] != 0 {
			count++
		}
	}
	return count
}
