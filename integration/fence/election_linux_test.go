package fence

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/cluster/etcd"
)

// server is an etcd of this process's own, on the loopback, which needs no root.
func server(t *testing.T, scheme string, flags ...string) (endpoint string, p *Process) {
	t.Helper()
	dir, err := programs()
	must(t, err)
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		return l.Addr().String()
	}
	client, peer := scheme+"://"+free(), "http://"+free()
	data := t.TempDir()
	p, err = start(nil, join(data, "log"), filepath.Join(dir, "etcd"), append([]string{"--data-dir", join(data, "data"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default=" + peer}, flags...)...)
	must(t, err)
	t.Cleanup(p.Kill)
	return client, p
}

// restart kills a server and starts it with the data it had.
func restart(t *testing.T, p *Process) {
	t.Helper()
	p.Kill()
	again, err := start(nil, p.log, p.cmd.Path, p.cmd.Args[1:]...)
	must(t, err)
	t.Cleanup(again.Kill)
}

// answers waits until a client has an answer, or is refused.
func answers(t *testing.T, c *etcd.Client) (err error) {
	t.Helper()
	eventually(t, 30*time.Second, "etcd answers", func() bool {
		err = c.Do(t.Context(), func(ctx context.Context, s *clientv3.Client) error {
			_, err := s.Get(ctx, "/postern/x")
			return err
		})
		return err == nil || errors.Is(err, etcd.ErrRefused)
	})
	return err
}

func dial(t *testing.T, c etcd.Config) *etcd.Client {
	t.Helper()
	c.Prefix = "/postern/"
	client, err := etcd.Dial(c)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func election(c *etcd.Client, node, instance string, now func() int64) *etcd.Election {
	return &etcd.Election{Client: c, Node: node, Instance: instance, Lease: 3 * time.Second, Margin: 300 * time.Millisecond, Now: now, Failed: func(error) {}}
}

// TestDeadline: a lease's end is counted from before the request, whatever happens to the process meanwhile.
func TestDeadline(t *testing.T) {
	at, p := server(t, "http")
	c := dial(t, etcd.Config{Endpoints: []string{at}, Timeout: 5 * time.Second})
	must(t, answers(t, c))
	e := election(c, "n1", "i", cluster.BootTime)
	for i := range 3 {
		before := cluster.BootTime()
		if i == 2 { // frozen while the request is under way: etcd answers late
			must(t, p.Signal(syscall.SIGSTOP))
			time.AfterFunc(time.Second, func() { _ = p.Signal(syscall.SIGCONT) })
		}
		l, err := e.Renew(t.Context())
		must(t, err)
		after := cluster.BootTime()
		asked := l.Until - int64(3*time.Second-300*time.Millisecond)
		if asked < before || i == 2 && after-asked < int64(900*time.Millisecond) {
			t.Errorf("renewal %d: asked %v after its beginning, answered after %v", i, time.Duration(asked-before), time.Duration(after-before))
		}
	}
}

func TestElection(t *testing.T) {
	at, _ := server(t, "http")
	// The first one never answers.
	c := dial(t, etcd.Config{Endpoints: []string{"http://127.0.0.1:1", at}, Timeout: 3 * time.Second})
	must(t, answers(t, c))
	one, two := election(c, "n1", "i1", cluster.BootTime), election(c, "n2", "i2", cluster.BootTime)
	l1, err := one.Renew(t.Context())
	must(t, err)
	l2, err := two.Renew(t.Context())
	must(t, err)
	if _, err := election(c, "n1", "i3", cluster.BootTime).Renew(t.Context()); !errors.Is(err, cluster.ErrNameTaken) || !strings.Contains(err.Error(), "i1") {
		t.Errorf("another of that name: %v", err)
	}
	// The same one, started anew, goes on.
	if l, err := election(c, "n1", "i1", cluster.BootTime).Renew(t.Context()); err != nil || l.ID != l1.ID {
		t.Errorf("started anew: %v, %v", l, err)
	}
	told := make(chan []cluster.Change, 100)
	go func() { _ = two.Follow(t.Context(), func(list []cluster.Change) { told <- list }) }()
	if first := <-told; !first[0].Reset || len(first) != 3 {
		t.Errorf("%+v", first)
	}
	a := netip.MustParseAddr("192.0.2.1")
	must(t, one.Claim(t.Context(), l1, []cluster.Claim{{Address: a}}))
	held := (<-told)[0]
	if held.Address != a || held.Holder.Node != "n1" || held.Holder.Lease != l1.ID || held.Holder.Malformed != "" {
		t.Errorf("%+v", held)
	}
	must(t, two.Claim(t.Context(), l2, []cluster.Claim{{Address: a}}))                                       // too late
	must(t, two.Release(t.Context(), l2, []cluster.Claim{{Address: a, Revision: held.Holder.Revision - 1}})) // of what it never held
	must(t, one.Release(t.Context(), l1, []cluster.Claim{{Address: a, Revision: held.Holder.Revision}}))
	released := (<-told)[0]
	if !released.Holder.Released || released.Holder.Node != "n1" {
		t.Errorf("%+v", released.Holder)
	}
	must(t, two.Claim(t.Context(), l2, []cluster.Claim{{Address: a, Revision: released.Revision}}))
	if taken := (<-told)[0]; taken.Holder.Node != "n2" || taken.Holder.Released {
		t.Errorf("%+v", taken.Holder)
	}
	// What is held goes with the lease, and all of it at once.
	must(t, two.Resign(t.Context()))
	if gone := <-told; len(gone) != 2 || gone[0].Node != "n2" || gone[0].Record != nil || gone[1].Address != a || gone[1].Holder != nil {
		t.Errorf("%+v", gone)
	}
	if err := two.Claim(t.Context(), l2, []cluster.Claim{{Address: a}}); !errors.Is(err, cluster.ErrLost) {
		t.Errorf("a claim by a lease that is over: %v", err)
	}
	if l, err := two.Renew(t.Context()); err == nil {
		t.Errorf("a new lease for one that resigned: %v", l)
	}
	if l, err := election(c, "n2", "i2", cluster.BootTime).Renew(t.Context()); err != nil || l.ID == l2.ID {
		t.Errorf("a new lease: %v, %v", l, err)
	}
	var many []cluster.Claim
	for i := range 250 {
		many = append(many, cluster.Claim{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})})
	}
	must(t, one.Claim(t.Context(), l1, many))
}

// TestLongElections: where etcd lets no lease be as short as was asked for, that is told.
func TestLongElections(t *testing.T) {
	at, _ := server(t, "http", "--heartbeat-interval", "500", "--election-timeout", "5000")
	c := dial(t, etcd.Config{Endpoints: []string{at}, Timeout: 5 * time.Second})
	must(t, answers(t, c))
	if l, err := election(c, "n1", "i", cluster.BootTime).Renew(t.Context()); err == nil || !strings.Contains(err.Error(), "write `lease: 8s`") {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestTLSAndUsers: certificates of both sides, and a user who may do what docs/agent.md grants.
func TestTLSAndUsers(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	pem := func(name string) string { return join(dir, name+".pem") }
	at, p := server(t, "https", "--cert-file", pem("server"), "--key-file", pem("server-key"), "--trusted-ca-file", pem("ca"), "--client-cert-auth")
	expired, _ := server(t, "https", "--cert-file", pem("expired"), "--key-file", pem("expired-key"))
	good := etcd.Config{Endpoints: []string{at}, CA: pem("ca"), Cert: pem("client"), Key: pem("client-key"), Timeout: 5 * time.Second}
	root := dial(t, good)
	must(t, answers(t, root))
	for name, c := range map[string]struct {
		etcd.Config
		want string
	}{
		"without a certificate": {etcd.Config{Endpoints: good.Endpoints, CA: good.CA, Timeout: time.Second}, "certificate required"},
		"of another authority":  {etcd.Config{Endpoints: good.Endpoints, Timeout: time.Second}, "certificate signed by unknown authority"},
		"an expired server":     {etcd.Config{Endpoints: []string{expired}, CA: good.CA, Timeout: time.Second}, "certificate has expired"},
	} {
		err := dial(t, c.Config).Do(t.Context(), func(ctx context.Context, s *clientv3.Client) error {
			_, err := s.Get(ctx, "/postern/x")
			return err
		})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		t.Logf("%s: %v", name, err)
	}
	// A certificate that is exchanged on disk is used from the next connection on.
	install := func(name string) {
		for from, to := range map[string]string{name: "own", name + "-key": "own-key"} {
			b, err := os.ReadFile(pem(from))
			must(t, err)
			must(t, os.WriteFile(pem(to), b, 0o600))
		}
	}
	install("stranger")
	own := dial(t, etcd.Config{Endpoints: good.Endpoints, CA: good.CA, Cert: pem("own"), Key: pem("own-key"), Timeout: time.Second})
	get := func(ctx context.Context, s *clientv3.Client) error { _, err := s.Get(ctx, "/postern/x"); return err }
	if err := own.Do(t.Context(), get); err == nil {
		t.Error("a stranger's certificate is taken")
	}
	install("client")
	must(t, answers(t, own))
	must(t, root.Do(t.Context(), func(ctx context.Context, s *clientv3.Client) error {
		_, e1 := s.UserAdd(ctx, "root", "r")
		_, e2 := s.UserGrantRole(ctx, "root", "root")
		_, e3 := s.RoleAdd(ctx, "postern")
		_, e4 := s.RoleGrantPermission(ctx, "postern", "/postern/", clientv3.GetPrefixRangeEnd("/postern/"), clientv3.PermissionType(clientv3.PermReadWrite))
		_, e5 := s.UserAdd(ctx, "agent", "a")
		_, e6 := s.UserGrantRole(ctx, "agent", "postern")
		_, e7 := s.AuthEnable(ctx)
		return errors.Join(e1, e2, e3, e4, e5, e6, e7)
	}))
	good.User, good.Password = "agent", "a"
	e := election(dial(t, good), "n1", "i", cluster.BootTime)
	l, err := e.Renew(t.Context())
	must(t, err)
	must(t, e.Publish(t.Context(), l, cluster.Node{}))
	must(t, e.Claim(t.Context(), l, []cluster.Claim{{Address: netip.MustParseAddr("192.0.2.1")}}))
	if _, err = e.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	// Tokens do not outlive the server that gave them.
	restart(t, p)
	eventually(t, 30*time.Second, "the lease is renewed at the server that was started anew", func() bool { again, err := e.Renew(t.Context()); return err == nil && again.ID == l.ID })
	if err := e.Publish(t.Context(), l, cluster.Node{Drained: true}); err != nil {
		t.Error(err)
	}
	good.Password = "b"
	if _, err := election(dial(t, good), "n2", "i", cluster.BootTime).Renew(t.Context()); !errors.Is(err, etcd.ErrRefused) {
		t.Errorf("a wrong password: %v", err)
	} else {
		t.Logf("a wrong password: %v", err)
	}
}

// authority makes a certificate authority, a server's certificate and a client's, a server's that has expired,
// and one of somebody else.
func authority(t *testing.T, dir string) {
	t.Helper()
	write := func(name, kind string, b []byte) {
		must(t, os.WriteFile(join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600))
	}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client", "expired", "stranger"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: "postern-" + name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
		if ca == nil {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
			ca, caKey = c, key
		}
		if name == "expired" {
			c.NotAfter = time.Now().Add(-time.Minute)
		}
		if name == "stranger" {
			ca, caKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
		must(t, err)
		private, err := x509.MarshalECPrivateKey(key)
		must(t, err)
		write(name, "CERTIFICATE", der)
		write(name+"-key", "EC PRIVATE KEY", private)
	}
}
