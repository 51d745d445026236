package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/chaos/check"
	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

const (
	accounts  = 6
	deposit   = 1000
	registers = 8
)

// tables are without keys where a key would hide a statement that was done
// twice behind an error.
var tables = []string{
	"DROP TABLE IF EXISTS chaos_set, chaos_account, chaos_transfer, chaos_register, chaos_direct, chaos_seen",
	"CREATE TABLE chaos_set (id bigint NOT NULL)",
	"CREATE TABLE chaos_account (id bigint PRIMARY KEY, balance bigint NOT NULL)",
	"CREATE TABLE chaos_transfer (id bigint NOT NULL, debit bigint NOT NULL, credit bigint NOT NULL, amount bigint NOT NULL)",
	"CREATE TABLE chaos_register (k bigint PRIMARY KEY, v bigint NOT NULL)",
	"CREATE TABLE chaos_direct (id bigint NOT NULL)",
	"CREATE TABLE chaos_seen (writer bigint NOT NULL, n bigint NOT NULL)",
	fmt.Sprintf("INSERT INTO chaos_account SELECT i, %d FROM generate_series(1, %d) i", deposit, accounts),
	fmt.Sprintf("INSERT INTO chaos_register SELECT i, 0 FROM generate_series(1, %d) i", registers),
	fmt.Sprintf("INSERT INTO chaos_seen SELECT i, 0 FROM generate_series(0, %d) i", len(readers)-1),
}

// Prepare makes the tables anew, in one transaction.
func Prepare(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, statement := range tables {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make the tables of the workloads: %w", err)
	}
	return nil
}

// Deposits are the balances that Prepare leaves.
func Deposits() map[int64]int64 {
	out := map[int64]int64{}
	for i := range int64(accounts) {
		out[i+1] = deposit
	}
	return out
}

// Content is what a server holds of the workloads.
type Content struct {
	Set       []int64
	Ledger    check.Ledger
	Registers map[int64]int64
	Direct    []int64
	Seen      []int64 // the numbers of all writers
}

// Differences says what another server holds otherwise; nothing where the two
// are alike.
func (c Content) Differences(other Content) (out []string) {
	for _, t := range []struct {
		table       string
		here, here2 any
		n, n2       int
	}{
		{"chaos_set", c.Set, other.Set, len(c.Set), len(other.Set)},
		{"chaos_account", c.Ledger.Balances, other.Ledger.Balances, len(c.Ledger.Balances), len(other.Ledger.Balances)},
		{"chaos_transfer", c.Ledger.Transfers, other.Ledger.Transfers, len(c.Ledger.Transfers), len(other.Ledger.Transfers)},
		{"chaos_register", c.Registers, other.Registers, len(c.Registers), len(other.Registers)},
		{"chaos_direct", c.Direct, other.Direct, len(c.Direct), len(other.Direct)},
		{"chaos_seen", c.Seen, other.Seen, len(c.Seen), len(other.Seen)},
	} {
		if !reflect.DeepEqual(t.here, t.here2) {
			out = append(out, fmt.Sprintf("%s (%d rows against %d)", t.table, t.n, t.n2))
		}
	}
	return out
}

// Read reads the tables of one server in one snapshot.
func Read(ctx context.Context, conn *pgx.Conn) (c Content, err error) {
	c.Ledger.Balances, c.Registers = map[int64]int64{}, map[int64]int64{}
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return errors.Join(
			scan(ctx, tx, "SELECT id FROM chaos_set ORDER BY id", 1, func(v []int64) { c.Set = append(c.Set, v[0]) }),
			scan(ctx, tx, "SELECT id, balance FROM chaos_account", 2, func(v []int64) { c.Ledger.Balances[v[0]] = v[1] }),
			scan(ctx, tx, "SELECT id, debit, credit, amount FROM chaos_transfer ORDER BY id", 4, func(v []int64) {
				c.Ledger.Transfers = append(c.Ledger.Transfers, check.Transfer{ID: v[0], From: v[1], To: v[2], Amount: v[3]})
			}),
			scan(ctx, tx, "SELECT k, v FROM chaos_register", 2, func(v []int64) { c.Registers[v[0]] = v[1] }),
			scan(ctx, tx, "SELECT id FROM chaos_direct ORDER BY id", 1, func(v []int64) { c.Direct = append(c.Direct, v[0]) }),
			scan(ctx, tx, "SELECT n FROM chaos_seen ORDER BY n", 1, func(v []int64) { c.Seen = append(c.Seen, v[0]) }),
		)
	})
	if err != nil {
		return c, fmt.Errorf("read the tables of the workloads: %w", err)
	}
	return c, nil
}

// scan reads rows of bigints.
func scan(ctx context.Context, tx pgx.Tx, query string, columns int, row func([]int64)) error {
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return err
	}
	v, to := make([]int64, columns), make([]any, columns)
	for i := range v {
		to[i] = &v[i]
	}
	_, err = pgx.ForEachRow(rows, to, func() error { row(v); return nil })
	return err
}

// adder adds ids that are unique to a set.
func adder(c *client) func(context.Context) {
	return func(ctx context.Context) {
		c.ask(ctx, history.Op{Kind: history.SetAdd, Value: c.value()}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
			return conn.QueryRow(ctx, "INSERT INTO chaos_set VALUES ($1) RETURNING "+where, op.Value).Scan(&op.Port, &op.Timeline)
		})
	}
}

// intruder writes past the proxy to whatever takes it.
func intruder(c *client) func(context.Context) {
	return func(ctx context.Context) {
		c.ask(ctx, history.Op{Kind: history.DirectWrite, Value: c.value()}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
			return conn.QueryRow(ctx, "INSERT INTO chaos_direct VALUES ($1) RETURNING "+where, op.Value).Scan(&op.Port, &op.Timeline)
		})
	}
}

// teller moves money between two accounts, and at times reads all of them.
func teller(c *client) func(context.Context) {
	return func(ctx context.Context) {
		if c.rand.IntN(5) == 0 {
			c.ask(ctx, history.Op{Kind: history.BankRead}, readBalances)
			return
		}
		from, to := 1+c.rand.Int64N(accounts), 1+c.rand.Int64N(accounts-1)
		if to >= from {
			to++
		}
		op := history.Op{Kind: history.BankTransfer, Value: c.value(), Key: from, Old: to, Amount: 1 + c.rand.Int64N(20)}
		c.ask(ctx, op, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
			err := moveMoney(ctx, conn, op)
			if err == nil || op.Outcome != history.Failed {
				return err
			}
			if _, gone := conn.Exec(ctx, "ROLLBACK"); gone != nil {
				c.close()
			}
			return err
		})
	}
}

func readBalances(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
	return conn.QueryRow(ctx, "SELECT array_agg(balance ORDER BY id), "+where+" FROM chaos_account").Scan(&op.Balances, &op.Port, &op.Timeline)
}

var errRolledBack = errors.New("the answer to COMMIT was ROLLBACK")

// moveMoney is one transaction. Until COMMIT is sent nothing of it can have
// been committed, whatever the error.
func moveMoney(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
	op.Outcome = history.Failed
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	// Always the lower account first, so that two tellers cannot wait for each
	// other.
	change := map[int64]int64{op.Key: -op.Amount, op.Old: op.Amount}
	for _, account := range slices.Sorted(maps.Keys(change)) {
		if _, err := conn.Exec(ctx, "UPDATE chaos_account SET balance = balance + $2 WHERE id = $1", account, change[account]); err != nil {
			return err
		}
	}
	if err := conn.QueryRow(ctx, "INSERT INTO chaos_transfer VALUES ($1, $2, $3, $4) RETURNING "+where, op.Value, op.Key, op.Old, op.Amount).Scan(&op.Port, &op.Timeline); err != nil {
		return err
	}
	op.Outcome = ""
	tag, err := conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		op.Outcome = history.Failed
		return fmt.Errorf("%w: %q", errRolledBack, tag)
	}
	return err
}

// clerk reads, writes and swaps the values of registers.
func clerk(c *client) func(context.Context) {
	seen := map[int64]int64{} // the latest value of each key that it knows
	note := func(k int64, op *history.Op, err error) error {
		if err == nil {
			seen[k] = op.Value
		}
		return err
	}
	return func(ctx context.Context) {
		key := 1 + c.rand.Int64N(registers)
		switch c.rand.IntN(4) {
		case 0, 1:
			c.ask(ctx, history.Op{Kind: history.RegRead, Key: key}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
				return note(key, op, conn.QueryRow(ctx, "SELECT v, "+where+" FROM chaos_register WHERE k = $1", key).Scan(&op.Value, &op.Port, &op.Timeline))
			})
		case 2:
			c.ask(ctx, history.Op{Kind: history.RegWrite, Key: key, Value: c.value()}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
				return note(key, op, conn.QueryRow(ctx, "UPDATE chaos_register SET v = $2 WHERE k = $1 RETURNING "+where, key, op.Value).Scan(&op.Port, &op.Timeline))
			})
		default:
			c.ask(ctx, history.Op{Kind: history.RegCAS, Key: key, Old: seen[key], Value: c.value()}, func(ctx context.Context, conn *pgx.Conn, op *history.Op) error {
				err := conn.QueryRow(ctx, "UPDATE chaos_register SET v = $3 WHERE k = $1 AND v = $2 RETURNING "+where, key, op.Old, op.Value).Scan(&op.Port, &op.Timeline)
				if errors.Is(err, pgx.ErrNoRows) {
					return nil // another value was there
				}
				op.Swapped = err == nil
				return note(key, op, err)
			})
		}
	}
}
