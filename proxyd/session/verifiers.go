package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const (
	freshFor      = 5 * time.Second // how long a looked-up verifier is not asked for again
	lookupTimeout = 2 * time.Second
	// refreshTimeout is for a role that is known already.
	refreshTimeout = 300 * time.Millisecond
	maxAbsent      = 1000
)

// role is what is known of a role, parsed.
type role struct {
	exists   bool
	scram    *wire.Verifier   // nil: none
	md5      wire.MD5Verifier // "": none
	problem  string           // why there is neither, for the log alone
	until    time.Time
	canLogin bool
	memberOf []string
	at       time.Time
}

// seen is the role as a login sees it at a time.
func (r *role) seen(now time.Time) auth.Role {
	return auth.Role{
		Exists: r.exists, CanLogin: r.canLogin, SCRAM: r.scram, MD5: r.md5, Problem: r.problem,
		Expired: !r.until.IsZero() && !r.until.After(now),
	}
}

// verifierCache keeps verifiers, so that logins neither wait for the primary
// nor need it.
type verifierCache struct {
	source Verifiers
	log    *slog.Logger
	now    func() time.Time
	flight singleflight.Group // one question at a time for each role

	iterations atomic.Int64 // of the verifier seen last, 0 for none yet

	mu    sync.Mutex
	roles map[string]*role
	// absent are names that strangers made up: they must not push out roles.
	absent map[string]*role
}

func newVerifierCache(source Verifiers, log *slog.Logger, now func() time.Time) *verifierCache {
	return &verifierCache{source: source, log: log, now: now,
		roles: make(map[string]*role), absent: make(map[string]*role)}
}

// get gives what is known of a role. A fresh entry is used as it is; an older
// one is asked for again, unless the primary is known to be away, and used
// when it cannot be. The error is that of a role that is in no cache.
func (c *verifierCache) get(ctx context.Context, user string, primary bool) (*role, error) {
	c.mu.Lock()
	r := c.roles[user]
	if r == nil {
		r = c.absent[user]
	}
	c.mu.Unlock()
	if r != nil && (!primary || c.now().Sub(r.at) < freshFor) {
		return r, nil
	}
	limit := lookupTimeout
	if r != nil { // good enough when the primary is slow to answer
		limit = refreshTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := c.flight.DoChan(user, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		return c.refresh(ctx, user)
	})
	select {
	case a := <-answer:
		if a.Err == nil {
			return a.Val.(*role), nil
		}
		if r == nil {
			return nil, a.Err
		}
	case <-ctx.Done():
		if r == nil {
			return nil, ctx.Err()
		}
	}
	return r, nil
}

// refresh asks the primary.
func (c *verifierCache) refresh(ctx context.Context, user string) (*role, error) {
	v, err := c.source.Lookup(ctx, user)
	r := &role{exists: err == nil, until: v.ValidUntil, canLogin: v.CanLogin, memberOf: v.MemberOf, at: c.now()}
	switch {
	case errors.Is(err, ErrNoRole):
		r.problem = "the role does not exist"
	case err != nil:
		return nil, err
	case v.Secret == "":
		r.problem = "the role has no password"
	default:
		var isMD5 bool
		if r.md5, isMD5 = wire.ParseMD5(v.Secret); isMD5 {
			break
		}
		if r.scram, err = wire.ParseVerifier(v.Secret); err != nil {
			r.problem = err.Error()
			break
		}
		c.iterations.Store(int64(r.scram.Iterations))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.exists {
		c.roles[user] = r
		delete(c.absent, user)
		return r, nil
	}
	if len(c.absent) >= maxAbsent {
		clear(c.absent)
	}
	c.absent[user] = r
	delete(c.roles, user)
	return r, nil
}

// forget makes the next login ask the primary: a server refused what was
// proved against this entry.
func (c *verifierCache) forget(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range []map[string]*role{c.roles, c.absent} {
		if r := m[user]; r != nil {
			stale := *r
			stale.at = time.Time{}
			m[user] = &stale
		}
	}
}
