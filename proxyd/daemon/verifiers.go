package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

// lookups bounds the connections that are kept to ask for verifiers. A burst
// of logins waits in line for one rather than opening hundreds.
const lookups = 4

// verifiers looks roles up on the primary, where clients prove themselves
// against what it keeps of them (PostgreSQL docs, 53.8 "pg_authid").
type verifiers struct {
	// primary is the node to ask; not ok while there is none.
	primary func() (cluster.Node, bool)
	dial    func(ctx context.Context, n cluster.Node) (*pgx.Conn, error)

	places chan *lookupConn // each place is a kept connection, or nil
}

var _ session.Verifiers = (*verifiers)(nil)

type lookupConn struct {
	node cluster.Node
	conn *pgx.Conn
}

func newVerifiers(primary func() (cluster.Node, bool), dial func(context.Context, cluster.Node) (*pgx.Conn, error)) *verifiers {
	v := &verifiers{primary: primary, dial: dial, places: make(chan *lookupConn, lookups)}
	for range lookups {
		v.places <- nil
	}
	return v
}

// Lookup implements session.Verifiers.
func (v *verifiers) Lookup(ctx context.Context, user string) (session.Verifier, error) {
	node, ok := v.primary()
	if !ok {
		return session.Verifier{}, errors.New("look a role up: there is no primary now")
	}
	var c *lookupConn
	select {
	case c = <-v.places:
	case <-ctx.Done():
		return session.Verifier{}, fmt.Errorf("look a role up on %s: %w", node.ID, ctx.Err())
	}
	kept := c
	defer func() { v.places <- kept }()
	if c != nil && (c.node.ID != node.ID || c.node.Addr() != node.Addr()) {
		hangUp(c.conn)
		c, kept = nil, nil
	}
	for attempt := 0; ; attempt++ {
		fresh := c == nil
		if fresh {
			conn, err := v.dial(ctx, node)
			if err != nil {
				return session.Verifier{}, fmt.Errorf("look a role up on %s: %w", node.ID, err)
			}
			c = &lookupConn{node, conn}
			kept = c
		}
		found, err := lookUp(ctx, c.conn, user)
		if err == nil || errors.Is(err, session.ErrNoRole) {
			return found, err
		}
		hangUp(c.conn)
		c, kept = nil, nil
		if fresh || attempt > 0 || ctx.Err() != nil {
			return session.Verifier{}, fmt.Errorf("look a role up on %s: %w", node.ID, err)
		}
	}
}

func lookUp(ctx context.Context, conn *pgx.Conn, user string) (session.Verifier, error) {
	var found session.Verifier
	var until pgtype.Timestamptz
	err := conn.QueryRow(ctx, `SELECT coalesce(rolpassword, ''), rolvaliduntil, rolcanlogin, ARRAY(
			WITH RECURSIVE up(role) AS (
				SELECT roleid FROM pg_catalog.pg_auth_members WHERE member OPERATOR(pg_catalog.=) a.oid
				UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m, up WHERE m.member OPERATOR(pg_catalog.=) up.role)
			SELECT g.rolname::pg_catalog.text FROM up, pg_catalog.pg_authid g WHERE g.oid OPERATOR(pg_catalog.=) up.role)
		FROM pg_catalog.pg_authid a WHERE rolname OPERATOR(pg_catalog.=) $1::pg_catalog.name`, user).
		Scan(&found.Secret, &until, &found.CanLogin, &found.MemberOf)
	if errors.Is(err, pgx.ErrNoRows) {
		return found, session.ErrNoRole
	}
	found.ValidUntil = validUntil(until)
	return found, err
}

// validUntil: no limit and infinity are no limit; -infinity is long past.
func validUntil(t pgtype.Timestamptz) time.Time {
	switch {
	case !t.Valid || t.InfinityModifier == pgtype.Infinity:
		return time.Time{}
	case t.InfinityModifier == pgtype.NegativeInfinity:
		return time.Unix(0, 0)
	}
	return t.Time
}

// Close hangs up. No Lookup may follow.
func (v *verifiers) Close() {
	for range lookups {
		if c := <-v.places; c != nil {
			hangUp(c.conn)
		}
	}
}

// hangUp gives a connection up, whether or not the server takes note.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}
