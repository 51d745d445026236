package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// shape is one way in which a client's library talks of a transaction.
type shape struct {
	name string
	// ready makes what the session needs, once for each connection.
	ready func(ctx context.Context, c *pgconn.PgConn) error
	// begin opens a transaction and writes a row; nil where commit does it all.
	begin func(ctx context.Context, c *pgconn.PgConn, id int64) error
	// commit gives the command tag of the COMMIT.
	commit func(ctx context.Context, c *pgconn.PgConn, id int64) (string, error)
}

func shapes() []shape {
	return []shape{
		{name: "simple", begin: simply("BEGIN", "INSERT INTO truths VALUES (%d)"), commit: simpleCommit},
		{name: "extended", begin: func(ctx context.Context, c *pgconn.PgConn, id int64) error {
			if _, err := c.ExecParams(ctx, "BEGIN", nil, nil, nil, nil).Close(); err != nil {
				return err
			}
			_, err := c.ExecParams(ctx, "INSERT INTO truths VALUES ($1)", number(id), nil, nil, nil).Close()
			return err
		}, commit: extendedCommit},
		{name: "prepared", ready: prepare, begin: func(ctx context.Context, c *pgconn.PgConn, id int64) error {
			if _, err := c.ExecPrepared(ctx, "begin", nil, nil, nil).Close(); err != nil {
				return err
			}
			_, err := c.ExecPrepared(ctx, "insert", number(id), nil, nil).Close()
			return err
		}, commit: func(ctx context.Context, c *pgconn.PgConn, _ int64) (string, error) {
			tag, err := c.ExecPrepared(ctx, "commit", nil, nil, nil).Close()
			return tag.String(), err
		}},
		{name: "pipeline, then COMMIT", begin: func(ctx context.Context, c *pgconn.PgConn, id int64) error {
			_, err := c.ExecBatch(ctx, batch(id)).ReadAll()
			return err
		}, commit: extendedCommit},
		{name: "all in one pipeline", commit: func(ctx context.Context, c *pgconn.PgConn, id int64) (string, error) {
			b := batch(id)
			b.ExecParams("COMMIT", nil, nil, nil, nil)
			results, err := c.ExecBatch(ctx, b).ReadAll()
			if err != nil || len(results) < 3 {
				return "", err
			}
			return results[2].CommandTag.String(), results[2].Err
		}},
		{name: "written by a function", begin: simply("BEGIN", "SELECT truth(%d)"), commit: simpleCommit},
		{name: "with a savepoint", begin: simply("BEGIN", "SAVEPOINT a", "INSERT INTO truths VALUES (-%d)", "ROLLBACK TO a", "INSERT INTO truths VALUES (%d)", "RELEASE a"), commit: simpleCommit},
	}
}

// simply says one thing after another in the simple protocol.
func simply(texts ...string) func(context.Context, *pgconn.PgConn, int64) error {
	return func(ctx context.Context, c *pgconn.PgConn, id int64) error {
		for _, text := range texts {
			if strings.Contains(text, "%") {
				text = fmt.Sprintf(text, id)
			}
			if _, err := c.Exec(ctx, text).ReadAll(); err != nil {
				return err
			}
		}
		return nil
	}
}

func simpleCommit(ctx context.Context, c *pgconn.PgConn, _ int64) (string, error) {
	results, err := c.Exec(ctx, "COMMIT").ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	return results[0].CommandTag.String(), nil
}

func extendedCommit(ctx context.Context, c *pgconn.PgConn, _ int64) (string, error) {
	tag, err := c.ExecParams(ctx, "COMMIT", nil, nil, nil, nil).Close()
	return tag.String(), err
}

func prepare(ctx context.Context, c *pgconn.PgConn) error {
	for name, text := range map[string]string{"begin": "BEGIN", "insert": "INSERT INTO truths VALUES ($1)", "commit": "COMMIT"} {
		if _, err := c.Prepare(ctx, name, text, nil); err != nil {
			return err
		}
	}
	return nil
}

func batch(id int64) *pgconn.Batch {
	var b pgconn.Batch
	b.ExecParams("BEGIN", nil, nil, nil, nil)
	b.ExecParams("INSERT INTO truths VALUES ($1)", number(id), nil, nil, nil)
	return &b
}

func number(id int64) [][]byte { return [][]byte{strconv.AppendInt(nil, id, 10)} }

// once is one transaction.
func (s shape) once(ctx context.Context, c *pgconn.PgConn, id int64) answer {
	if s.begin != nil {
		if err := s.begin(ctx, c, id); err != nil {
			a := answer{told: toldAborted} // nothing was asked to be committed
			if sqlstate(err) != "40001" {
				a.odd = err
			}
			return a
		}
	}
	a := answer{sent: time.Now()}
	tag, err := s.commit(ctx, c, id)
	switch code := sqlstate(err); {
	case err == nil && tag == "COMMIT":
		a.told = toldCommitted
	case err == nil || code == "40001" || code == "25P02":
		a.told = toldAborted
	default:
		a.told = toldNothing
		if code != "08007" {
			a.odd = fmt.Errorf("COMMIT: %w", err)
		}
	}
	return a
}

// work is one client: it begins a transaction only while there is a shift, and
// ends it whatever happens meanwhile.
func (r *rig) work(ctx context.Context, t *truths, s shape) {
	var c *pgconn.PgConn
	for ctx.Err() == nil {
		c = r.turn(ctx, t, s, c)
	}
	if c != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(last)
	}
}

// turn is a transaction, or a new connection. It gives the connection to go on
// with, nil for none.
func (r *rig) turn(ctx context.Context, t *truths, s shape, c *pgconn.PgConn) *pgconn.PgConn {
	r.shift.RLock()
	defer r.shift.RUnlock()
	if ctx.Err() != nil {
		return c
	}
	if c == nil || c.IsClosed() {
		c, err := r.join(ctx, s)
		if err != nil && ctx.Err() == nil {
			t.strange(fmt.Errorf("connect: %w", err))
		}
		return c
	}
	id := t.next()
	a := s.once(ctx, c, id)
	if ctx.Err() != nil {
		return c
	}
	t.note(id, s.name, a)
	if !c.IsClosed() && c.TxStatus() != 'I' {
		if _, err := c.Exec(ctx, "ROLLBACK").ReadAll(); err != nil && ctx.Err() == nil {
			t.strange(fmt.Errorf("ROLLBACK: %w", err))
		}
	}
	return c
}

func (r *rig) join(ctx context.Context, s shape) (*pgconn.PgConn, error) {
	dsn := fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s sslmode=disable", r.target.Host, r.target.Port, r.target.Database, r.target.User, r.target.Password)
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	if s.ready != nil {
		if err := s.ready(ctx, c); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	return c, nil
}

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// truthsTable is where the rows go, and the function that hides a write.
func truthsTable(user string) []string {
	u := pgx.Identifier{user}.Sanitize()
	return []string{
		"CREATE TABLE truths (id bigint PRIMARY KEY)",
		"GRANT ALL ON truths TO " + u,
		"CREATE FUNCTION truth(bigint) RETURNS void LANGUAGE sql AS 'INSERT INTO public.truths VALUES ($1)'",
	}
}
