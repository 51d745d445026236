package admin

import (
	"context"
	"maps"
	"slices"
	"time"
)

// figures are a Totals in the order of statColumns; durations in microseconds.
func (t Totals) figures() []uint64 {
	return []uint64{t.Assignments, t.Transactions, t.Queries, t.Received, t.Sent,
		micro(t.TransactionTime), micro(t.QueryTime), micro(t.WaitTime), t.ClientParses, t.ServerParses, t.Binds, t.Logins}
}

func micro(d time.Duration) uint64 { return uint64(max(0, d).Microseconds()) }

// averages are what PgBouncer makes of two readings: times by what took them,
// all else by the second.
func averages(now, before Totals, took time.Duration) []uint64 {
	a, b := now.figures(), before.figures()
	out := make([]uint64, len(a))
	for i := range a {
		if a[i] > b[i] && took > 0 {
			out[i] = uint64(float64(a[i]-b[i]) / took.Seconds())
		}
	}
	const assignments, transactions, queries = 0, 1, 2
	for _, t := range []struct{ time, of int }{{5, transactions}, {6, queries}, {7, assignments}} {
		out[t.time] = 0
		if n := a[t.of] - min(a[t.of], b[t.of]); n > 0 {
			out[t.time] = (a[t.time] - min(a[t.time], b[t.time])) / n
		}
	}
	return out
}

func appendFigures(r row, figures []uint64) row {
	for _, f := range figures {
		r = append(r, f)
	}
	return r
}

// stats gives each database's totals, and its averages since the reading
// before.
func (c *Console) stats() (names []string, totals, avgs map[string][]uint64) {
	v := c.opt.Plane.View()
	before, took := c.history.before(v.At)
	totals, avgs = make(map[string][]uint64), make(map[string][]uint64)
	for name, t := range v.Totals {
		totals[name] = t.figures()
		avgs[name] = averages(t, before[name], took)
	}
	return slices.Sorted(maps.Keys(totals)), totals, avgs
}

func statRows(_ context.Context, c *Console) ([]row, error) {
	names, totals, avgs := c.stats()
	var out []row
	for _, n := range names {
		out = append(out, appendFigures(appendFigures(row{n}, totals[n]), avgs[n]))
	}
	return out, nil
}

func totalRows(_ context.Context, c *Console) ([]row, error) {
	names, totals, _ := c.stats()
	var out []row
	for _, n := range names {
		out = append(out, appendFigures(row{n}, totals[n]))
	}
	return out, nil
}

func averageRows(_ context.Context, c *Console) ([]row, error) {
	names, _, avgs := c.stats()
	var out []row
	for _, n := range names {
		out = append(out, appendFigures(row{n}, avgs[n]))
	}
	return out, nil
}

// sumNames are how SHOW TOTALS calls what others call otherwise.
var sumNames = []string{
	"server_assignment_count", "xact_count", "query_count", "client_bytes", "server_bytes",
	"xact_time", "query_time", "wait_time", "ps_client_parse_count", "ps_server_parse_count", "ps_bind_count", "client_login_count",
}

func sumRows(_ context.Context, c *Console) ([]row, error) {
	v := c.opt.Plane.View()
	before, took := c.history.before(v.At)
	var now, then Totals
	for name, t := range v.Totals {
		now.add(t)
		then.add(before[name])
	}
	var out []row
	for i, f := range now.figures() {
		out = append(out, row{"total_" + sumNames[i], f})
	}
	for i, f := range averages(now, then, took) {
		out = append(out, row{"avg_" + sumNames[i], f})
	}
	return out, nil
}
