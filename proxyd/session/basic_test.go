package session

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

var bothModes = []Mode{ModeSession, ModeTransaction}

func TestQueriesInEveryModeOfPgx(t *testing.T) {
	for _, mode := range bothModes {
		p := startProxy(t, mode)
		for _, exec := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
			t.Run(fmt.Sprintf("%s/%s", mode, exec), func(t *testing.T) {
				ctx := within(t)
				a, b := p.connect(t, "default_query_exec_mode="+exec), p.connect(t, "default_query_exec_mode="+exec)
				for i := range 20 {
					for _, conn := range []*pgx.Conn{a, b} {
						var got int
						if err := conn.QueryRow(ctx, "SELECT $1::int + 1", i).Scan(&got); err != nil || got != i+1 {
							t.Fatalf("%d: %d, %v", i, got, err)
						}
						var text string
						if err := conn.QueryRow(ctx, "SELECT $1::text", "x").Scan(&text); err != nil || text != "x" {
							t.Fatalf("%d: %q, %v", i, text, err)
						}
					}
				}
			})
		}
	}
}
