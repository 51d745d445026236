package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// Config says how a node's machine is reached.
type Config struct {
	Addr       string // host:port
	User       string // login
	KeyFile    string // private key without a passphrase, readable by its owner alone
	KnownHosts string // OpenSSH known_hosts; a host that is not in it is refused

	// Timeout limits dialling, the handshake and the opening of a session.
	// A command itself is limited by its context alone. Zero means 5 s.
	Timeout time.Duration

	// KeepAlive is the pause between probes of an idle connection; one that
	// is not answered within Timeout ends the connection. Zero means none.
	KeepAlive time.Duration
}

const defaultTimeout = 5 * time.Second

// Client is an execute.Host over ssh. Its methods may be called concurrently.
type Client struct {
	cfg Config

	dialing chan struct{} // held by whoever dials, so that one connection is made

	mu     sync.Mutex
	conn   *conn
	closed bool
}

// conn is one connection and the goroutine that watches it.
type conn struct {
	*ssh.Client
	done chan struct{} // closed when the connection has ended
	wg   sync.WaitGroup
}

// New makes a client that dials with its first command.
func New(cfg Config) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	return &Client{cfg: cfg, dialing: make(chan struct{}, 1)}
}

// Close ends the connection. Commands that run get execute.ErrUnknown.
func (c *Client) Close() error {
	c.mu.Lock()
	old := c.conn
	c.conn, c.closed = nil, true
	c.mu.Unlock()
	if old != nil {
		old.end()
	}
	return nil
}

func (c *conn) end() {
	// Its error says only that the peer was gone before us.
	_ = c.Client.Close()
	c.wg.Wait()
}

// current is the open connection, nil where there is none.
func (c *Client) current() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("ssh %s: %w: the client is closed", c.cfg.Addr, execute.ErrUnreachable)
	}
	if c.conn != nil {
		select {
		case <-c.conn.done:
			c.conn = nil
		default:
		}
	}
	return c.conn, nil
}

// connect gives the open connection, dialling where there is none. fresh says
// that it was dialled now.
func (c *Client) connect(ctx context.Context) (open *conn, fresh bool, err error) {
	if open, err = c.current(); open != nil || err != nil {
		return open, false, err
	}
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, false, fmt.Errorf("ssh %s: %w: %w", c.cfg.Addr, execute.ErrUnreachable, ctx.Err())
	}
	if open, err = c.current(); open != nil || err != nil {
		return open, false, err
	}
	dialled, err := c.dial(ctx)
	if err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		dialled.end()
		return nil, false, fmt.Errorf("ssh %s: %w: the client is closed", c.cfg.Addr, execute.ErrUnreachable)
	}
	c.conn = dialled
	c.mu.Unlock()
	return dialled, true, nil
}

// drop forgets a connection that failed, so that the next command dials.
func (c *Client) drop(dead *conn) {
	c.mu.Lock()
	if c.conn == dead {
		c.conn = nil
	}
	c.mu.Unlock()
	dead.end()
}

func (c *Client) dial(ctx context.Context) (*conn, error) {
	signer, err := readKey(c.cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	hosts, err := readKnownHosts(c.cfg.KnownHosts, c.cfg.Addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("ssh %s: %w: %w", c.cfg.Addr, execute.ErrUnreachable, err)
	}
	// The handshake knows no context: it ends when its socket does.
	unwatch := context.AfterFunc(ctx, func() { _ = raw.Close() })
	cc, chans, reqs, err := ssh.NewClientConn(raw, c.cfg.Addr, &ssh.ClientConfig{
		User:              c.cfg.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   hosts.check,
		HostKeyAlgorithms: hosts.algorithms,
		ClientVersion:     "SSH-2.0-pgtandem",
		Timeout:           c.cfg.Timeout,
	})
	if !unwatch() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		return nil, c.explain(ctx, err)
	}
	open := &conn{Client: ssh.NewClient(cc, chans, reqs), done: make(chan struct{})}
	open.wg.Go(func() { _ = open.Wait(); close(open.done) })
	if c.cfg.KeepAlive > 0 {
		open.wg.Go(func() { open.keepAlive(c.cfg.KeepAlive, c.cfg.Timeout) })
	}
	return open, nil
}

// explain types a failed handshake by what may be done about it: a wrong key
// on either side needs a person, anything else may pass.
func (c *Client) explain(ctx context.Context, err error) error {
	var host *HostKeyError
	if errors.As(err, &host) {
		return fmt.Errorf("ssh %s: %w", c.cfg.Addr, host)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("ssh %s: %w: no handshake in time: %w", c.cfg.Addr, execute.ErrUnreachable, ctx.Err())
	}
	if isAuthentication(err) {
		return fmt.Errorf("ssh %s: %w: %s does not accept the key %s for user %s: add its public half to ~%s/.ssh/authorized_keys there",
			c.cfg.Addr, execute.ErrRefused, c.cfg.Addr, c.cfg.KeyFile, c.cfg.User, c.cfg.User)
	}
	return fmt.Errorf("ssh %s: %w: %w", c.cfg.Addr, execute.ErrUnreachable, err)
}

// keepAlive ends a connection whose peer has gone without saying so.
func (c *conn) keepAlive(every, limit time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
		late := time.AfterFunc(limit, func() { _ = c.Close() })
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		late.Stop()
		if err != nil {
			_ = c.Close()
			return
		}
	}
}
