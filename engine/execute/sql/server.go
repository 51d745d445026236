// Package sql does, over SQL, what the steps of a plan ask of one server:
// change a setting, make a promise, promote, confirm a position. Each method is
// one verb of PostgreSQL's; none decides when it is right to use it.
package sql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
)

// Dial opens a superuser's connection to one node.
type Dial func(ctx context.Context) (*pgx.Conn, error)

// Server is one node, reached as the recovery role over one connection that is
// kept open, because a failover has no time to log in. It is safe for
// concurrent use; statements run one at a time.
type Server struct {
	ID   cluster.NodeID
	dial Dial

	mu    sync.Mutex
	conn  *pgx.Conn
	alone bool // no other session of ours can execute anything on the server
}

// New makes a server that dials at first use.
func New(id cluster.NodeID, dial Dial) *Server { return &Server{ID: id, dial: dial} }

// Close closes the connection.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

func (s *Server) drop() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // it is given up either way
	s.conn, s.alone = nil, false
}

// Warm opens the connection beforehand and reports whether it is usable.
func (s *Server) Warm(ctx context.Context) error {
	return s.do(ctx, "ping", func(c *pgx.Conn) error { return c.Ping(ctx) })
}

// do runs f on the kept connection, and once more on a fresh one when the old
// one turned out to be dead before anything was sent. A change on a fresh
// connection waits until no earlier one of ours can be executed any more.
func (s *Server) do(ctx context.Context, what string, f func(*pgx.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && !repeatable(what) && s.conn.Ping(ctx) != nil {
		s.drop() // it died unnoticed; a change sent on it would end as unknown
	}
	for attempt := 0; ; attempt++ {
		fresh := s.conn == nil
		if fresh {
			conn, err := s.dial(ctx)
			if err != nil {
				return fmt.Errorf("%s on %s: connect: %w", what, s.ID, classify(err))
			}
			s.conn = conn
			if err := named(ctx, conn); err != nil {
				s.drop()
				return fmt.Errorf("%s on %s: connect: %w", what, s.ID, classify(err))
			}
		}
		if !s.alone && !repeatable(what) {
			if err := alone(ctx, s.conn); err != nil {
				s.drop()
				return fmt.Errorf("%s on %s: %w", what, s.ID, err)
			}
			s.alone = true
		}
		err := f(s.conn)
		if err == nil {
			return nil
		}
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && !s.conn.IsClosed() {
			return fmt.Errorf("%s on %s: %w", what, s.ID, err)
		}
		s.drop()
		if attempt == 0 && !fresh && (pgconn.SafeToRetry(err) || ctx.Err() == nil && repeatable(what)) {
			continue
		}
		return fmt.Errorf("%s on %s: %w: %w", what, s.ID, execute.ErrUnknown, err)
	}
}

// repeatable: reading twice harms nothing.
func repeatable(what string) bool { return strings.HasPrefix(what, "read ") || what == "ping" }

func classify(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code != "57P03" {
		return err
	}
	return fmt.Errorf("%w: %w", execute.ErrUnreachable, err)
}

// Identity is who a server is.
type Identity struct {
	InRecovery       bool
	SystemIdentifier uint64
	Timeline         cluster.Timeline
	Flushed          cluster.LSN // on a primary
}

// Identity reads whether the server is in recovery and what it belongs to. On
// a primary the timeline is that of the WAL it writes now.
func (s *Server) Identity(ctx context.Context) (Identity, error) {
	var id Identity
	err := s.do(ctx, "read the identity", func(c *pgx.Conn) error {
		var sys int64
		var walfile, flush string
		var tli int64
		err := c.QueryRow(ctx, `SELECT r, s.system_identifier, c.timeline_id,
			CASE WHEN r THEN '' ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END,
			CASE WHEN r THEN '' ELSE pg_current_wal_flush_lsn()::text END
			FROM pg_is_in_recovery() r, pg_control_system() s, pg_control_checkpoint() c`).
			Scan(&id.InRecovery, &sys, &tli, &walfile, &flush)
		if err != nil {
			return err
		}
		id.SystemIdentifier, id.Timeline = uint64(sys), cluster.Timeline(tli)
		if len(walfile) == 24 {
			if _, err := fmt.Sscanf(walfile[:8], "%X", &tli); err == nil {
				id.Timeline = cluster.Timeline(tli)
			}
		}
		id.Flushed, err = cluster.ParseLSN(flush)
		return err
	})
	return id, err
}

// Setting is a running value and where it comes from.
type Setting struct{ Value, Source string }

// Show reads a setting as this session has it, with the file and line that
// gave it.
func (s *Server) Show(ctx context.Context, name string) (Setting, error) {
	var v Setting
	err := s.do(ctx, "read "+name, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT setting, coalesce(sourcefile || ':' || sourceline, source)
			FROM pg_settings WHERE name = $1`, name).Scan(&v.Value, &v.Source)
	})
	return v, err
}

// AlterSystem changes a setting in postgresql.auto.conf and reloads. It does
// not wait for the server to take it up.
func (s *Server) AlterSystem(ctx context.Context, name, value string) error {
	return s.do(ctx, "ALTER SYSTEM SET "+name, func(c *pgx.Conn) error {
		if _, err := c.Exec(ctx, "ALTER SYSTEM SET "+pgx.Identifier{name}.Sanitize()+" = "+literal(value)); err != nil {
			return err
		}
		_, err := c.Exec(ctx, "SELECT pg_reload_conf()")
		return err
	})
}

// ResetSystem removes a setting from postgresql.auto.conf, so that the file's
// value is in force, and reloads.
func (s *Server) ResetSystem(ctx context.Context, name string) error {
	return s.do(ctx, "ALTER SYSTEM RESET "+name, func(c *pgx.Conn) error {
		if _, err := c.Exec(ctx, "ALTER SYSTEM RESET "+pgx.Identifier{name}.Sanitize()); err != nil {
			return err
		}
		_, err := c.Exec(ctx, "SELECT pg_reload_conf()")
		return err
	})
}

// literal quotes a string constant (PostgreSQL docs, 4.1.2.1). The E form is
// right whatever standard_conforming_strings says.
func literal(v string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// Reload makes the server read its configuration files.
func (s *Server) Reload(ctx context.Context) error {
	return s.do(ctx, "read the configuration (pg_reload_conf)", func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT pg_reload_conf()")
		return err
	})
}

// Checkpoint writes a checkpoint and waits for it.
func (s *Server) Checkpoint(ctx context.Context) error {
	return s.do(ctx, "CHECKPOINT", func(c *pgx.Conn) error { _, err := c.Exec(ctx, "CHECKPOINT"); return err })
}

// Promote asks a standby to become a primary. It does not wait: pg_promote's
// own wait looks ten times a second only.
func (s *Server) Promote(ctx context.Context) error {
	return s.do(ctx, "pg_promote", func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT pg_promote(false)")
		return err
	})
}
