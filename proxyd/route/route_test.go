package route_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/route"
	"github.com/pgtandem/pgtandem/proxyd/route/catalog"
	"github.com/pgtandem/pgtandem/proxyd/route/choose"
	"github.com/pgtandem/pgtandem/proxyd/route/classify"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pair is a primary that takes no reads where the standby can, and a standby
// that is level with it.
func pair() *choose.Monitor {
	m := choose.NewMonitor()
	m.Configure([]choose.Node{{Name: "pgsql1", Weight: 0, Reads: true}, {Name: "pgsql2", Weight: 1, Reads: true}}, choose.Limits{})
	m.SetPrimary("pgsql1")
	level(m, 1000)
	return m
}

// level lets the monitor see both at a position.
func level(m *choose.Monitor, at cluster.LSN) {
	m.Sampled(m.Begin(), start, "pgsql1", 1, at)
	m.Replayed(m.Begin(), "pgsql2", 1, at)
}

func situation(m *choose.Monitor) route.Situation {
	return route.Situation{View: m.View(), Now: start}
}

// Example is how a session runs a client's statements.
func Example() {
	monitor := pair()
	judge := classify.New(1 << 20)
	judge.Use(&catalog.Snapshot{}) // of an empty database; a catalog.Keeper does this
	reader := judge.Reader()

	var client route.Client
	for _, text := range []string{"SELECT 1", "INSERT INTO t VALUES (1)", "SELECT 1", "SELECT now()"} {
		verdict := reader.Classify([]byte(text), classify.Rules{})
		d := client.Decide(verdict, situation(monitor))
		fmt.Printf("%-24s  %s\n", text, d)
		client.Ended(monitor.Now())
	}
	level(monitor, 2000)
	client.Decide(reader.Classify([]byte("SELECT 1"), classify.Rules{}), situation(monitor))
	fmt.Printf("%-24s  %s\n", "and a moment later", client.Last())
	// Output:
	// SELECT 1                  standby pgsql2: by weight
	// INSERT INTO t VALUES (1)  primary pgsql1: it is INSERT, which writes
	// SELECT 1                  primary pgsql1: no standby has replayed yet what the client wrote
	// SELECT now()              primary pgsql1: it calls now, which the catalog does not know
	// and a moment later        standby pgsql2: by weight
}

var (
	read       = classify.Verdict{Kind: classify.Read}
	write      = classify.Verdict{Kind: classify.Write, Reason: "is INSERT, which writes"}
	ddl        = classify.Verdict{Kind: classify.Write, Schema: true, Reason: "is CREATE, which changes the schema"}
	local      = classify.Verdict{Kind: classify.Local, Reason: "is SHOW, whose answer is that of one server"}
	begin      = classify.Verdict{Kind: classify.Begin, Reason: "begins a transaction that was not said to be READ ONLY"}
	beginRead  = classify.Verdict{Kind: classify.BeginRead}
	beginWrite = classify.Verdict{Kind: classify.BeginWrite, Reason: "begins a transaction READ WRITE"}
)

func TestWhereThingsGoAndWhy(t *testing.T) {
	for _, story := range []struct {
		name    string
		verdict classify.Verdict
		change  func(*route.Situation)
		want    string
		after   string // where a read goes that follows it
	}{
		{"a read", read, nil, "standby pgsql2: by weight", "standby pgsql2: by weight"},
		{"a write", write, nil, "primary pgsql1: it is INSERT, which writes", "primary pgsql1: no standby has replayed yet what the client wrote"},
		{"SHOW", local, nil, "primary pgsql1: it is SHOW, whose answer is that of one server", "standby pgsql2: by weight"},
		{"BEGIN", begin, nil, "primary pgsql1: it begins a transaction that was not said to be READ ONLY", "primary pgsql1: no standby has replayed yet what the client wrote"},
		{"BEGIN in a read-only session", begin, func(s *route.Situation) { s.ReadOnly = true }, "standby pgsql2: by weight", "standby pgsql2: by weight"},
		{"BEGIN READ ONLY", beginRead, nil, "standby pgsql2: by weight", "standby pgsql2: by weight"},
		{"BEGIN READ WRITE in a read-only session", beginWrite, func(s *route.Situation) { s.ReadOnly = true },
			"primary pgsql1: it begins a transaction READ WRITE", "primary pgsql1: no standby has replayed yet what the client wrote"},
		{"a pinned client", read, func(s *route.Situation) { s.Pinned = "a temporary table" },
			"primary pgsql1: the client is pinned by a temporary table", "standby pgsql2: by weight"},
		{"a batch of a read and a write", read.And(write), nil, "primary pgsql1: it is INSERT, which writes", "primary pgsql1: no standby has replayed yet what the client wrote"},
	} {
		t.Run(story.name, func(t *testing.T) {
			m := pair()
			s := situation(m)
			if story.change != nil {
				story.change(&s)
			}
			var c route.Client
			if got := c.Decide(story.verdict, s).String(); got != story.want {
				t.Errorf("got  %s\nwant %s", got, story.want)
			}
			if c.Last().String() != story.want {
				t.Errorf("the last decision is %s", c.Last())
			}
			c.Ended(m.Now())
			if got := c.Decide(read, situation(m)).String(); got != story.after {
				t.Errorf("afterwards: got  %s\nwant %s", got, story.after)
			}
			level(m, 2000)
			if got := c.Decide(read, situation(m)).String(); got != "standby pgsql2: by weight" {
				t.Errorf("when the standby is level again: %s", got)
			}
		})
	}
}

func TestAReadWhoseStandbyFails(t *testing.T) {
	for state, want := range map[string]string{
		"25006": "primary pgsql1: the standby refused it: it writes; now it needs the primary",
		"40001": "primary pgsql1: the standby cancelled it: it stood in the way of replay; now it has failed on the standbys already",
		"22012": "",
		"57014": "",
	} {
		m := pair()
		var c route.Client
		d := c.Decide(read, situation(m))
		what, why := route.RefusedByStandby(state)
		switch what {
		case route.Answer:
			if want != "" {
				t.Errorf("%s is taken for the statement's own error", state)
			}
			continue
		case route.Elsewhere:
			d = c.Again(why, []cluster.NodeID{d.Node}, situation(m))
		case route.OnPrimary:
			d = c.Primary(why, situation(m))
		}
		if d.String() != want {
			t.Errorf("%s\n\tgot  %s\n\twant %s", state, d, want)
		}
		c.Ended(m.Now())
		if wrote := !c.Decide(read, situation(m)).Standby; wrote != (what == route.OnPrimary) {
			t.Errorf("%s: what a standby refused as a write counts as one: %v", state, wrote)
		}
	}
}

func TestASchemaChangeIsToldWhenItIsCommitted(t *testing.T) {
	m := pair()
	var c route.Client
	c.Decide(ddl, situation(m))
	if !c.Ended(m.Now()) || c.Ended(m.Now()) {
		t.Error("a schema change by itself is told once")
	}
	c.Decide(begin, situation(m))
	c.Within(false)
	c.Within(true)
	c.Within(false)
	if !c.Ended(m.Now()) {
		t.Error("one inside a transaction is told at its end")
	}
	c.Decide(read, situation(m))
	if c.Ended(m.Now()) {
		t.Error("a read is none")
	}
}

func TestLabels(t *testing.T) {
	m := pair()
	var c route.Client
	label := func(v classify.Verdict) string { return c.Decide(v, situation(m)).Label() }
	got := []string{(route.Decision{}).Label(), label(read), label(write)}
	c.Ended(m.Now())
	got = append(got, label(read))
	m.Lost("pgsql2")
	got = append(got, label(read), c.Primary("refused", situation(m)).Label())
	m.Configure([]choose.Node{{Name: "pgsql1", Weight: 1, Reads: true}, {Name: "pgsql2", Weight: 0, Reads: true}}, choose.Limits{})
	level(m, 3000)
	got = append(got, label(read))
	if want := "[none standby text own_writes no_standby refusal primary_by_weight]"; fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
}

func TestWithoutAPrimary(t *testing.T) {
	m := pair()
	m.SetPrimary("")
	var c route.Client
	if got := c.Decide(write, situation(m)).String(); got != "no node yet: it is INSERT, which writes" {
		t.Error(got)
	}
	if got := (route.Decision{}).String(); got != "nothing has been decided yet" {
		t.Error(got)
	}
}

func TestADecisionAllocatesNothing(t *testing.T) {
	s := situation(pair())
	var c route.Client
	if n := testing.AllocsPerRun(100, func() {
		c.Decide(read, s)
		c.Ended(1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	judge := classify.New(1 << 20)
	judge.Use(&catalog.Snapshot{})
	reader := judge.Reader()
	text := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 12345;")
	reader.Classify(text, classify.Rules{})
	m := pair()
	var c route.Client
	b.ReportAllocs()
	for b.Loop() {
		v, _ := reader.Lookup(text, classify.Rules{})
		c.Decide(v, situation(m))
		c.Ended(m.Now())
	}
}
