package workload

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

// readers are the clients of a run whose reads go to standbys: the first only
// writes, so that it can be told how old an answer is. The order is that of
// their numbers in chaos_seen.
var readers = []member{
	{"seen-0", beat, pgx.QueryExecModeExec, patience, false},
	{"seen-1", onlooker(1), pgx.QueryExecModeSimpleProtocol, patience, false},
	{"seen-2", onlooker(2), pgx.QueryExecModeExec, patience, false},
	{"seen-3", onlooker(3), pgx.QueryExecModeCacheStatement, patience, false},
}

// seen is a read that any node may serve, and says which one has: a setting is
// no more than that to the proxy.
const seen = `SELECT array_agg(n ORDER BY writer), current_setting('port')::int FROM (SELECT writer, max(n) AS n FROM chaos_seen GROUP BY writer) AS latest`

// Landing asks where a read lands.
func Landing(ctx context.Context, conn *pgx.Conn) (port int, err error) {
	var all []int64
	if err := conn.QueryRow(ctx, seen).Scan(&all, &port); err != nil {
		return 0, fmt.Errorf("see where a read lands: %w", err)
	}
	return port, nil
}

func note(c *client, writer int64) func(context.Context) {
	return func(ctx context.Context) {
		c.ask(ctx, history.Op{Kind: history.SeenWrite, Key: writer, Value: c.value()}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
			_, err := conn.Exec(ctx, "INSERT INTO chaos_seen VALUES ($1, $2)", writer, op.Value)
			return err
		})
	}
}

// beat writes its next number all the time.
func beat(c *client) func(context.Context) { return note(c, 0) }

// onlooker reads all numbers, each read by itself or two in one transaction, and
// now and then writes one, after which its reads keep away from the standbys for
// a moment.
func onlooker(number int64) func(*client) func(context.Context) {
	return func(c *client) func(context.Context) {
		write := note(c, number)
		return func(ctx context.Context) {
			switch n := c.rand.IntN(60); {
			case n == 0:
				write(ctx)
			case n < 10:
				c.ask(ctx, history.Op{Kind: history.SeenTwice, Key: number}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
					return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
						if err := tx.QueryRow(ctx, seen).Scan(&op.Seen, &op.Port); err != nil {
							return err
						}
						return tx.QueryRow(ctx, seen).Scan(&op.Again, &op.Port)
					})
				})
			default:
				c.ask(ctx, history.Op{Kind: history.SeenRead, Key: number}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
					return conn.QueryRow(ctx, seen).Scan(&op.Seen, &op.Port)
				})
			}
		}
	}
}
