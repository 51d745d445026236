package steps

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/clock"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// paper is a record that nothing keeps.
type paper struct{ rec cluster.Record }

func (p *paper) Record() cluster.Record { return p.rec.Clone() }

func (p *paper) Update(_ context.Context, change func(*cluster.Record) error) (cluster.Record, error) {
	next := p.rec.Clone()
	if err := change(&next); err != nil {
		return p.rec, err
	}
	p.rec = next
	return next.Clone(), nil
}

// hostOf answers what a Doer asks before it speaks to the server.
type hostOf struct{ Host }

func (hostOf) Conninfo(context.Context, cluster.Node) (string, error) { return "host=pgsql1", nil }

func (hostOf) ConfigureStandby(context.Context, cluster.Node, string) error { return nil }

func (hostOf) ControlData(context.Context) (ControlData, error) {
	return ControlData{State: "shut down in recovery"}, nil
}

func (hostOf) Postmaster(context.Context) (cluster.Postmaster, int, error) {
	return cluster.PostmasterStopped, 0, nil
}

// silent is a world whose servers do not answer.
func silent(rec cluster.Record) (*World, *paper) {
	p := &paper{rec}
	w := &World{Records: p, Clock: clock.System{}, Servers: map[cluster.NodeID]Server{}, Hosts: map[cluster.NodeID]Host{}}
	var policy cluster.Policy
	for _, id := range []cluster.NodeID{"pgsql1", "pgsql2", "pgsql3"} {
		policy.Nodes = append(policy.Nodes, cluster.Node{ID: id})
		w.Servers[id] = sql.New(id, func(context.Context) (*pgx.Conn, error) { return nil, errors.New("nobody is there") })
		w.Hosts[id] = hostOf{}
	}
	w.Policy = func() cluster.Policy { return policy }
	return w, p
}

func promises(two, three cluster.Member) cluster.Record {
	return cluster.Record{Term: 1, Primary: "pgsql1",
		SyncSet: cluster.SyncSet{Method: "FIRST", K: 1, Members: []cluster.NodeID{"pgsql2", "pgsql3"}},
		Members: map[cluster.NodeID]cluster.Member{"pgsql1": {Eligible: true}, "pgsql2": two, "pgsql3": three}}
}

func TestCountPromises(t *testing.T) {
	for _, tt := range []struct {
		story      string
		two, three cluster.Member
		force      string
		refused    string // empty: it counts
	}{
		{story: "both promised and hold the same", two: cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, three: cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}},
		{story: "the other did not promise", two: cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, three: cluster.Member{Eligible: true}, refused: "1 of 2 promised and 2 are needed"},
		{story: "the other holds more", two: cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, three: cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 200}, refused: "pgsql3 holds 0/C8, more"},
		{story: "the other is being taken in, has confirmed a commit that we lack, and is not eligible yet",
			two: cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, three: cluster.Member{Promised: 2, PromisedLSN: 200}, refused: "pgsql3 holds 0/C8, more"},
		{story: "a promise for a term that is over", two: cluster.Member{Eligible: true, Promised: 1, PromisedLSN: 100}, refused: "has not promised for term 2"},
		{story: "forced", two: cluster.Member{Promised: 2}, force: "true"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			w, _ := silent(promises(tt.two, tt.three))
			_, err := w.countPromises(t.Context(), plan.Step{Node: "pgsql2", Args: map[string]string{"force": tt.force}})
			switch {
			case tt.refused == "" && err != nil:
				t.Error(err)
			case tt.refused != "" && (!errors.Is(err, execute.ErrRefused) || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("%v; want it refused, saying %q", err, tt.refused)
			}
		})
	}
}

// The one that was being taken in when the primary was lost may alone have
// confirmed the last commits, and it has all that an eligible one has.
func TestTheOneBeingTakenInIsPromotedWhereItHoldsMore(t *testing.T) {
	for _, tt := range []struct {
		story   string
		two     cluster.Member
		three   cluster.Member
		refused string
	}{
		{"it holds more", cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, cluster.Member{Promised: 2, PromisedLSN: 200}, ""},
		{"it holds as much", cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, cluster.Member{Promised: 2, PromisedLSN: 100}, ""},
		{"it holds less", cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, cluster.Member{Promised: 2, PromisedLSN: 50}, "not eligible"},
		{"no eligible one promised: what was acknowledged before it joined may be nowhere", cluster.Member{Promised: 2, PromisedLSN: 100}, cluster.Member{Promised: 2, PromisedLSN: 200}, "not eligible"},
		{"the eligible one promised for another term", cluster.Member{Eligible: true, Promised: 1, PromisedLSN: 100}, cluster.Member{Promised: 2, PromisedLSN: 200}, "not eligible"},
		{"it is a former primary", cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, cluster.Member{Fenced: true, Promised: 2, PromisedLSN: 200}, "not eligible"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			w, _ := silent(promises(tt.two, tt.three))
			_, err := w.countPromises(t.Context(), plan.Step{Node: "pgsql3", Args: map[string]string{"force": "false"}})
			if (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%v; want it refused, saying %q", err, tt.refused)
			}
		})
	}
}

// Several standbys that are dropped at once are each recorded with why.
func TestEachDroppedStandbyHasItsOwnReason(t *testing.T) {
	w, p := silent(promises(cluster.Member{Eligible: true}, cluster.Member{Eligible: true}))
	step := plan.Step{Kind: plan.RecordIneligible, Args: map[string]string{"nodes": "pgsql2,pgsql3", "reason": "pgsql2 was stopped", plan.ReasonOf("pgsql3"): "pgsql3 is silent"}}
	if err := Doers(w)[step.Kind].Do(t.Context(), step, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if two, three := p.rec.Members["pgsql2"].Reason, p.rec.Members["pgsql3"].Reason; two != "pgsql2 was stopped" || three != "pgsql3 is silent" {
		t.Errorf("%q and %q", two, three)
	}
}

// A promotion was begun, the standby promised, and then the primary was back:
// the standby follows it and confirms its commits. What it promised must not
// count when the primary is lost again in the same term.
func TestAPromiseEndsWhenTheNodeFollowsAgain(t *testing.T) {
	for _, kind := range []plan.Kind{plan.NodeFollow, plan.NodeConfigure} {
		t.Run(string(kind), func(t *testing.T) {
			w, p := silent(promises(cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, cluster.Member{Promised: 1}))
			step := plan.Step{ID: "1", Kind: kind, Node: "pgsql2", Args: map[string]string{"from": "pgsql1"}}
			_ = Doers(w)[kind].Do(t.Context(), step, func(string) {}) // it cannot reach the server
			if m := p.rec.Members["pgsql2"]; m.Promised != 0 || m.PromisedLSN != 0 || !m.Eligible {
				t.Errorf("before the server is told, the record says %+v", m)
			}
			step.Node = "pgsql3"
			_ = Doers(w)[kind].Do(t.Context(), step, func(string) {})
			if m := p.rec.Members["pgsql3"]; m.Promised != 1 {
				t.Errorf("a promise for a term that has begun is no more: %+v", m)
			}
		})
	}
}

// The record alone does not prove that a standby still receives nothing.
func TestARecordedPromiseIsLookedAt(t *testing.T) {
	w, _ := silent(promises(cluster.Member{Eligible: true, Promised: 2, PromisedLSN: 100}, cluster.Member{}))
	done, saw, _ := Doers(w)[plan.NodePromise].Check(t.Context(), plan.Step{Node: "pgsql2", Args: map[string]string{"term": "2"}})
	if done {
		t.Errorf("a server that does not answer is taken to receive nothing: %s", saw)
	}
}

func TestNothingIsPromotedOnAPromiseOfAnotherTerm(t *testing.T) {
	for _, promised := range []cluster.Term{0, 1, 3} {
		w, _ := silent(promises(cluster.Member{Eligible: true, Promised: promised}, cluster.Member{}))
		err := Doers(w)[plan.NodePromote].Do(t.Context(), plan.Step{Node: "pgsql2"}, func(string) {})
		if !errors.Is(err, execute.ErrRefused) {
			t.Errorf("promised for %d, with term 2 to begin: %v", promised, err)
		}
	}
}

func TestReplayedAll(t *testing.T) {
	for _, tt := range []struct {
		story  string
		r      sql.Receiving
		before cluster.LSN
		want   bool
	}{
		{"all that was received is replayed", sql.Receiving{Received: 100, Replayed: 100}, 0, true},
		{"replay goes on", sql.Receiving{Received: 100, Replayed: 90}, 80, false},
		{"the last record arrived in part", sql.Receiving{Received: 100, Replayed: 90, Idle: true}, 90, true},
		{"restarted, and reading what it has in pg_wal", sql.Receiving{Replayed: 90}, 80, false},
		{"restarted, between two records", sql.Receiving{Replayed: 90}, 90, false},
		{"restarted, and at the end of what it has", sql.Receiving{Replayed: 90, Idle: true}, 90, true},
	} {
		t.Run(tt.story, func(t *testing.T) {
			if got := replayedAll(tt.r, tt.before); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
