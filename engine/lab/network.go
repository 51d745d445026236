package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab/relay"
)

// Network is how the nodes and proxyd reach each other.
type Network string

// The networks.
const (
	// PlainNetwork: everything on one address of the loopback.
	PlainNetwork Network = ""
	// RelayedNetwork: on the loopback, through a relay of this process, which
	// can cut and delay. The lab is reachable while this process lives.
	RelayedNetwork Network = "relay"
	// NamespaceNetwork: each node, its server and its sshd, in a network
	// namespace of its own, where packets can be dropped. It needs root.
	NamespaceNetwork Network = "namespaces"
	// NamespaceRelayedNetwork: namespaces, in which packets can be dropped, and
	// a relay between them, which can cut and delay.
	NamespaceRelayedNetwork Network = "namespaces+relay"
)

// DaemonSide is the side of a path that is no node: proxyd's host, and with it
// whoever else asks from there.
const DaemonSide = "daemon"

// ErrNoNetwork: the lab's network cannot be made bad in that way.
var ErrNoNetwork = errors.New("the lab was made without a network for that")

func (n Network) relayed() bool { return n == RelayedNetwork || n == NamespaceRelayedNetwork }

func (n Network) spaced() bool { return n == NamespaceNetwork || n == NamespaceRelayedNetwork }

func (n Network) check() error {
	switch {
	case !slices.Contains([]Network{PlainNetwork, RelayedNetwork, NamespaceNetwork, NamespaceRelayedNetwork}, n):
		return fmt.Errorf("there is no network %q: %s, %s, %s, or none for the plain loopback", n, RelayedNetwork, NamespaceNetwork, NamespaceRelayedNetwork)
	case n.spaced() && os.Geteuid() != 0:
		return fmt.Errorf("only root can make network namespaces: use the network %q", RelayedNetwork)
	case n.spaced():
		for _, program := range []string{"ip", "nft", "nsenter"} {
			if _, err := exec.LookPath(program); err != nil {
				return fmt.Errorf("%s is %w, and a network of namespaces needs it: apt-get install iproute2 nftables util-linux", program, ErrMissing)
			}
		}
	}
	return nil
}

// wires is what of the network lives in this process.
type wires struct {
	mu    sync.Mutex
	relay *relay.Relay
	cuts  map[[2]string]bool
	loss  int // percent
}

// chooseAddresses gives each node its addresses. Those of namespaces are in
// 198.18.0.0/15, which is for measuring networks and is routed nowhere (RFC
// 2544, C.2.2).
func (l *Lab) chooseAddresses() error {
	if l.state.Network == PlainNetwork {
		return nil
	}
	subnet, err := l.freeSubnet()
	if err != nil {
		return err
	}
	l.state.Subnet = subnet
	for i := range l.state.Nodes {
		n := &l.state.Nodes[i]
		n.Listen = l.address(10 + i)
		n.Host = n.Listen
		if l.state.Network.relayed() {
			n.Host = l.address(100 + i)
		}
	}
	return nil
}

// address is the lab's address with that last number.
func (l *Lab) address(last int) string {
	if l.state.Network.spaced() {
		return fmt.Sprintf("198.18.%d.%d", l.state.Subnet, last)
	}
	return fmt.Sprintf("127.18.%d.%d", l.state.Subnet, last)
}

// freeSubnet is one whose addresses are nobody's here.
func (l *Lab) freeSubnet() (int, error) {
	for range 100 {
		l.state.Subnet = 1 + rand.IntN(250)
		if !l.state.Network.spaced() {
			// All of 127.0.0.0/8 is ours to listen on; what is taken is a port.
			ln, err := net.Listen("tcp", net.JoinHostPort(l.address(100), strconv.Itoa(l.state.Nodes[0].Port)))
			if err != nil {
				continue
			}
			return l.state.Subnet, ln.Close()
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return 0, fmt.Errorf("find a free network: %w", err)
		}
		mine := net.ParseIP(l.address(1))
		if !slices.ContainsFunc(addrs, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.Contains(mine) }) {
			return l.state.Subnet, nil
		}
	}
	return 0, errors.New("find a free network: a hundred that were tried are taken")
}

// daemonAddress is where proxyd, and the relay, connect from.
func (l *Lab) daemonAddress() string {
	if l.state.Network.spaced() {
		return l.address(1)
	}
	return loopback
}

// space is the name of a node's network namespace, and of its link. It is the
// lab's alone: made of its directory, which is.
func (l *Lab) space(n nodeState) string {
	i := slices.IndexFunc(l.state.Nodes, func(o nodeState) bool { return o.Name == n.Name })
	return fmt.Sprintf("%s-%d", l.Bridge(), i+1)
}

// bridgePrefix begins the names of all labs' bridges.
const bridgePrefix = "pgt"

// Bridge is the name of what joins the namespaces of this lab, at most 15 bytes with a
// node's number behind it (the kernel's IFNAMSIZ).
func (l *Lab) Bridge() string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(l.Dir)) // a hash takes everything
	return fmt.Sprintf("%s%08x", bridgePrefix, h.Sum32())
}

// asOn makes a command that runs as the owner on a node's host.
func (l *Lab) asOn(ctx context.Context, n nodeState, name string, args ...string) *exec.Cmd {
	if !l.state.Network.spaced() {
		return l.as(ctx, name, args...)
	}
	c := l.as(ctx, "nsenter", append([]string{"--net=/run/netns/" + l.space(n), "--setgid", fmt.Sprint(l.owner.gid), "--setuid", fmt.Sprint(l.owner.uid), "--", name}, args...)...)
	c.SysProcAttr.Credential = nil // nsenter becomes the owner itself, once it is there
	return c
}

// connectNodes makes the network, or what is missing of it.
func (l *Lab) connectNodes(ctx context.Context) error {
	if l.state.Network.spaced() {
		if err := l.makeSpaces(ctx); err != nil {
			return err
		}
	}
	if !l.state.Network.relayed() {
		return nil
	}
	l.wires.mu.Lock()
	defer l.wires.mu.Unlock()
	if l.wires.relay != nil {
		return nil
	}
	r := relay.New(l.whose)
	for _, n := range l.state.Nodes {
		for _, port := range []int{n.Port, n.SSHPort} {
			p := strconv.Itoa(port)
			if err := r.Add(ctx, relay.Link{To: n.Name, Listen: net.JoinHostPort(n.host(), p), Dial: net.JoinHostPort(n.listen(), p), Source: l.daemonAddress()}); err != nil {
				r.Close()
				return err
			}
		}
	}
	l.wires.relay = r
	return nil
}

// disconnect removes the network. Where there is none it does nothing.
func (l *Lab) disconnect(ctx context.Context) error {
	l.wires.mu.Lock()
	r := l.wires.relay
	l.wires.relay, l.wires.cuts, l.wires.loss = nil, nil, 0
	l.wires.mu.Unlock()
	if r != nil {
		r.Close()
	}
	if !l.state.Network.spaced() {
		return nil
	}
	return l.removeSpaces(ctx)
}

// afterFailure takes down a lab that did not come up and has a network, which
// must not outlive it. Any other lab is left as it is: up may be run again.
func (l *Lab) afterFailure(ctx context.Context) error {
	if l.state.Network == PlainNetwork {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return l.Down(ctx)
}

// Network says which one the lab has.
func (l *Lab) Network() Network { return l.state.Network }

func (l *Lab) side(name string) error {
	if name == DaemonSide {
		return nil
	}
	_, err := l.node(name)
	return err
}

// Cut drops everything that goes from one side to another, nodes or
// DaemonSide, until it is mended. What goes back is not affected.
func (l *Lab) Cut(ctx context.Context, from, to string) error { return l.setCut(ctx, from, to, true) }

// Mend ends a cut.
func (l *Lab) Mend(ctx context.Context, from, to string) error {
	return l.setCut(ctx, from, to, false)
}

func (l *Lab) setCut(ctx context.Context, from, to string, cut bool) error {
	if err := errors.Join(l.side(from), l.side(to)); err != nil {
		return err
	}
	if from == to {
		return fmt.Errorf("cut %s from itself: name two sides", from)
	}
	w := l.wires
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.relay != nil && cut:
		w.relay.Cut(from, to)
		return nil
	case w.relay != nil:
		w.relay.Mend(from, to)
		return nil
	case !l.state.Network.spaced():
		return ErrNoNetwork
	}
	if w.cuts == nil {
		w.cuts = map[[2]string]bool{}
	}
	if w.cuts[[2]string{from, to}] = true; !cut {
		delete(w.cuts, [2]string{from, to})
	}
	return l.filter(ctx)
}

// Loss drops packets at random, on their way to and from every node, percent
// of each hundred; 0 ends it.
func (l *Lab) Loss(ctx context.Context, percent int) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("a loss of %d %%: from 0 to 100", percent)
	}
	if !l.state.Network.spaced() {
		return ErrNoNetwork
	}
	l.wires.mu.Lock()
	defer l.wires.mu.Unlock()
	l.wires.loss = percent
	return l.filter(ctx)
}

// Jitter delays what goes between any two sides at random, in order, by at
// most so much; 0 ends it.
func (l *Lab) Jitter(most time.Duration) error {
	l.wires.mu.Lock()
	defer l.wires.mu.Unlock()
	if l.wires.relay == nil {
		return ErrNoNetwork
	}
	l.wires.relay.Jitter(most)
	return nil
}

// Repair makes the network whole and quick.
func (l *Lab) Repair(ctx context.Context) error {
	if l.state.Network == PlainNetwork {
		return nil
	}
	sides := []string{DaemonSide}
	for _, n := range l.state.Nodes {
		sides = append(sides, n.Name)
	}
	w := l.wires
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.relay != nil {
		w.relay.Jitter(0)
		for _, from := range sides {
			for _, to := range sides {
				w.relay.Mend(from, to)
			}
		}
	}
	w.cuts, w.loss = nil, 0
	if !l.state.Network.spaced() {
		return nil
	}
	return l.filter(ctx)
}
