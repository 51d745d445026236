package session

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// outcome of one row that a client tried to write.
type outcome string

const (
	acknowledged outcome = "acknowledged"
	repeatable   outcome = "40001" // was told that it is not there
	inDoubt      outcome = "08007"
)

// writer writes rows of its own until stop is closed, every other one in a
// transaction block, and keeps what it was told of each.
func writer(t *testing.T, p *proxy, first int, stop <-chan struct{}) map[int]outcome {
	ctx := within(t)
	rows := make(map[int]outcome)
	conn, err := pgx.Connect(ctx, p.dsn(""))
	if err != nil {
		t.Error(err)
		return rows
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	insert := func(id int) error {
		if id%2 == 0 {
			_, err := conn.Exec(ctx, "INSERT INTO chaos VALUES ($1)", id)
			return err
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO chaos VALUES ($1)", id)
			return err
		})
	}
	for id := first; ; id++ {
		select {
		case <-stop:
			return rows
		default:
		}
		switch err := insert(id); {
		case err == nil:
			rows[id] = acknowledged
		case code(err) == "40001" || code(err) == "08007":
			rows[id] = outcome(code(err))
		default: // 23505 would be a statement that was sent twice
			t.Errorf("row %d: %v", id, err)
			return rows
		}
	}
}

func TestNothingAcknowledgedIsLostAndNothingIsSentTwice(t *testing.T) {
	for _, mode := range bothModes {
		t.Run(string(mode), func(t *testing.T) {
			pg.Exec(t, "test1", "DROP TABLE IF EXISTS chaos", "CREATE TABLE chaos (id int PRIMARY KEY)", "GRANT ALL ON chaos TO test1")
			p := startProxy(t, mode)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			var mu sync.Mutex
			rows := make(map[int]outcome)
			const writers = 8
			for i := range writers {
				wg.Go(func() {
					mine := writer(t, p, i*1_000_000, stop)
					mu.Lock()
					defer mu.Unlock()
					for id, o := range mine {
						rows[id] = o
					}
				})
			}
			for term := range 3 {
				before := p.Stats().Transactions
				eventually(t, "work is done", func() bool { return p.Stats().Transactions > before+100 })
				p.crash(t)
				p.open(t, cluster.Term(term+2))
			}
			before := p.Stats().Transactions
			eventually(t, "work goes on", func() bool { return p.Stats().Transactions > before+100 })
			close(stop)
			wg.Wait()
			verify(t, rows)
		})
	}
}

// verify compares what the clients were told with what is there.
func verify(t *testing.T, rows map[int]outcome) {
	t.Helper()
	conn, err := pgx.Connect(within(t), pg.URL("test1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	found, err := conn.Query(within(t), "SELECT id FROM chaos")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(found, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	present := make(map[int]bool, len(ids))
	for _, id := range ids {
		present[id] = true
	}
	count := make(map[string]int)
	for id, o := range rows {
		count[fmt.Sprintf("%s, there: %v", o, present[id])]++
		if o == acknowledged && !present[id] {
			t.Errorf("row %d was acknowledged and is lost", id)
		}
		if o == repeatable && present[id] {
			t.Errorf("row %d was called rolled back and is there", id)
		}
	}
	t.Log(count)
}
