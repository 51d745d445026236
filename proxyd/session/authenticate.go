package session

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/user"
	"slices"
	"time"

	"github.com/tailscale/peercred"

	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/hba"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// maxSASL is PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH: what a client's message
// may have, in bytes, before it has proved itself.
const maxSASL = 1024

// tlsFacts are what the handshake said. They are of use for the login alone.
type tlsFacts struct {
	NegotiatedProtocol string
	endpoint           []byte            // channel binding data of the certificate it was shown
	certificate        *x509.Certificate // its own, verified; nil: none
}

// everybody is the rule where there are no rules.
var everybody = &hba.Rule{Method: hba.SCRAM}

// authenticate lets the client prove itself as the rules say, against what the
// primary keeps of its role.
func (c *client) authenticate(proved func()) error {
	if c.owner = c.atConsole && c.unix != nil && c.s.opts.Console.Owner(c.unix, c.group.User); c.owner {
		return c.write(wire.AppendAuth(nil, wire.AuthOK, nil))
	}
	sec := c.s.sec.Load()
	who := &suspect{client: c, held: proved}
	rule := everybody
	if sec.Rules != nil {
		rule = sec.Rules.Match(hba.Connection{
			Local: c.unix != nil, Address: c.from, TLS: c.secure, Database: c.group.Database, User: c.group.User,
			Replication: c.walsender == physicalWalsender, MemberOf: who.memberOf, Interfaces: interfaces,
		})
	}
	var known auth.Role
	if rule != nil && rule.Method != hba.Reject { // a stranger is not worth a question
		if r := who.role(); r != nil {
			known = r.seen(c.s.now())
		}
	}
	if who.notice != nil {
		c.send(who.notice) //nolint:errcheck // going anyway
		return who.notice
	}
	a := auth.Authenticator{Maps: sec.Maps, Mock: sec.MockSecret, Iterations: int(c.s.verifiers.iterations.Load())}
	cred, err := a.Login(channel{c}, auth.Client{
		User: c.group.User, Database: c.group.Database, Host: c.hostText(), TLS: c.secure, Replication: c.walsender == physicalWalsender,
		Endpoint: c.tls.endpoint, Certificate: c.tls.certificate, SystemUser: c.systemUser, MemberOf: who.memberOf,
	}, rule, known)
	c.tls = tlsFacts{}
	var refusal *auth.Refusal
	if errors.As(err, &refusal) {
		if refusal.Proof {
			c.s.verifiers.forget(c.group.User) // the password may have been changed just now
		}
		c.send(refusal.Notice) //nolint:errcheck // going anyway
	}
	c.login.Credential = cred
	return err
}

// suspect looks its role up when it is first asked for, and only then.
type suspect struct {
	client *client
	held   func() // told when it is we who let it wait
	known  *role
	notice *wire.Notice // why it could not be
}

func (w *suspect) role() *role {
	if w.known == nil && w.notice == nil {
		w.known, w.notice = w.client.role(w.held)
	}
	return w.known
}

func (w *suspect) memberOf(group string) bool {
	r := w.role()
	return r != nil && r.exists && (group == w.client.group.User || slices.Contains(r.memberOf, group))
}

// hostText is the client's address as PostgreSQL's errors have it.
func (c *client) hostText() string {
	if c.unix != nil {
		return ""
	}
	return c.from.WithZone("").String()
}

// systemUser is whom the kernel names at the other end of the Unix socket.
func (c *client) systemUser() (string, error) {
	if c.unix == nil {
		return "", errors.New("only a Unix socket tells")
	}
	cred, err := peercred.Get(c.unix)
	if err != nil {
		return "", fmt.Errorf("ask the kernel for the client's account: %w", err)
	}
	id, ok := cred.UserID()
	if !ok {
		return "", errors.New("the kernel does not tell the client's account")
	}
	u, err := user.LookupId(id)
	if err != nil {
		return "", fmt.Errorf("look account %s up: %w", id, err)
	}
	return u.Username, nil
}

// interfaces are this host's addresses with their networks.
func interfaces() (out []netip.Prefix) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil // no address is ours then, and the rule does not match
	}
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		address, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		ones, _ := n.Mask.Size()
		out = append(out, netip.PrefixFrom(address.Unmap(), ones))
	}
	return out
}

// channel carries the login's messages.
type channel struct{ c *client }

func (ch channel) Ask(kind uint32, data []byte) error {
	return ch.c.write(wire.AppendAuth(nil, kind, data))
}

func (ch channel) Answer() ([]byte, error) {
	typ, body, err := wire.ReadMessage(ch.c.conn, nil, maxSASL)
	if err == nil && typ != wire.Password {
		err = fmt.Errorf("%w: expected SASL response, got message type %d", wire.ErrProtocol, typ)
	}
	return bytes.Clone(body), err
}

// role looks the role up, held like everybody else while the primary that
// would know it is away.
func (c *client) role(held func()) (*role, *wire.Notice) {
	limits := c.s.limits()
	ctx, cancel := context.WithTimeout(context.Background(), limits.HoldTimeout)
	defer cancel()
	gate := c.s.opts.Gate
	var unhold func()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		_, open := gate.Target()
		changed := gate.Changed()
		r, err := c.s.verifiers.get(context.Background(), c.group.User, open)
		if err == nil {
			if unhold != nil {
				unhold()
				c.conn.SetDeadline(c.s.now().Add(limits.LoginTimeout)) //nolint:errcheck // what was held does not count
			}
			return r, nil
		}
		if unhold == nil {
			unhold = gate.Hold()
			defer unhold()
			held()
			c.conn.SetDeadline(time.Time{}) //nolint:errcheck // it is we who let it wait
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil || c.s.closing.Load() {
			c.s.log.Warn("a role could not be looked up", "user", c.group.User, "error", err)
			return nil, wire.Fatalf(wire.CodeCannotConnectNow, "no primary is available to check the login; waited %v", limits.HoldTimeout).
				WithDetail("%s", gate.Reason())
		}
	}
}
