package steps

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/decide"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/plan"
)

func (w *World) adopted(_ context.Context, s plan.Step) (bool, string, error) {
	r := w.Records.Record()
	return r.Term > 0 && r.Primary == s.Node, fmt.Sprintf("term %d, primary %s", r.Term, r.Primary), nil
}

func (w *World) adopt(ctx context.Context, s plan.Step, _ func(string)) error {
	srv, err := w.server(s.Node)
	if err != nil {
		return err
	}
	id, err := srv.Identity(ctx)
	if err != nil {
		return err
	}
	if id.InRecovery {
		return fmt.Errorf("%w: adopt %s: it is in recovery", execute.ErrRefused, s.Node)
	}
	set, err := srv.Show(ctx, "synchronous_standby_names")
	if err != nil {
		return err
	}
	sw, err := srv.SwitchLSN(ctx, id.Timeline)
	if err != nil {
		return err
	}
	running := decide.ParseSyncNames(set.Value)
	p := w.Policy()
	if err := w.nobodyWentFurther(ctx, s.Node, id); err != nil {
		return err
	}
	_, err = w.Records.Update(ctx, func(r *cluster.Record) error {
		if r.Term != 0 {
			return fmt.Errorf("%w: adopt: the record has term %d already", execute.ErrRefused, r.Term)
		}
		r.Cluster, r.SystemIdentifier, r.Term, r.Primary, r.Timeline = p.Cluster, id.SystemIdentifier, 1, s.Node, id.Timeline
		r.SyncSet, r.SyncSince, r.WantMode, r.Mode = running, w.Clock.Now(), cluster.ModeSync, cluster.ModeAsync
		if len(running.Members) > 0 {
			r.Mode = cluster.ModeSync
		}
		r.Members = map[cluster.NodeID]cluster.Member{}
		for _, n := range p.Nodes {
			m := cluster.Member{Since: w.Clock.Now(), Reason: "it has not confirmed the primary's position yet"}
			if n.ID == s.Node {
				m = cluster.Member{Eligible: true, Since: w.Clock.Now(), Reason: "the primary", LSN: id.Flushed}
			}
			r.Members[n.ID] = m
		}
		r.History = []cluster.HistoryEntry{{SystemIdentifier: id.SystemIdentifier, Timeline: id.Timeline, SwitchLSN: sw, Node: s.Node, Term: 1, At: w.Clock.Now()}}
		return nil
	})
	return err
}

// nobodyWentFurther refuses to adopt a primary that another node's history goes
// past: after a failover whose record was lost, the one that takes writes may be
// the old primary, started by its host, and the one that is stopped the new.
func (w *World) nobodyWentFurther(ctx context.Context, primary cluster.NodeID, id sql.Identity) error {
	for _, n := range w.Policy().Nodes {
		h, err := w.host(n.ID)
		if n.ID == primary || err != nil {
			continue
		}
		// Where ssh gives no answer the rule wants the node to answer over SQL,
		// and an absent directory holds nothing.
		short, cancel := w.Clock.Timeout(ctx, 2*time.Second)
		cd, err := h.ControlData(short)
		cancel()
		if err != nil {
			continue
		}
		if cd.SystemIdentifier == id.SystemIdentifier && cd.Timeline > id.Timeline {
			return fmt.Errorf("%w: adopt %s on timeline %d: %s is on timeline %d and may hold what was acknowledged last; start it, or move its data directory aside",
				execute.ErrRefused, primary, id.Timeline, n.ID, cd.Timeline)
		}
	}
	return nil
}

func (w *World) fenced(_ context.Context, s plan.Step) (bool, string, error) {
	m := w.Records.Record().Members[s.Node]
	return m.Fenced && !m.Eligible && (m.Astray || s.Args["astray"] != "true"), "fenced", nil
}

func (w *World) fence(ctx context.Context, s plan.Step, _ func(string)) error {
	why := "a former primary that has not followed since"
	if !slices.ContainsFunc(w.Records.Record().History, func(h cluster.HistoryEntry) bool { return h.Node == s.Node }) {
		why = "it was to be stopped or overwritten, and has not followed since"
	}
	return w.member(ctx, s.Node, func(m *cluster.Member) {
		m.Fenced, m.Eligible, m.Since, m.Reason = true, false, w.Clock.Now(), why
		m.Astray = m.Astray || s.Args["astray"] == "true"
	})
}

// member changes what is recorded of one node.
func (w *World) member(ctx context.Context, id cluster.NodeID, change func(*cluster.Member)) error {
	_, err := w.Records.Update(ctx, func(r *cluster.Record) error {
		m := r.Members[id]
		change(&m)
		r.Members[id] = m
		return nil
	})
	return err
}

func (w *World) areIneligible(_ context.Context, s plan.Step) (bool, string, error) {
	r := w.Records.Record()
	for _, id := range nodes(s) {
		if r.Members[id].Eligible {
			return false, string(id) + " is eligible", nil
		}
	}
	return true, fmt.Sprintf("revision %d", r.Revision), nil
}

func (w *World) makeIneligible(ctx context.Context, s plan.Step, _ func(string)) error {
	_, err := w.Records.Update(ctx, func(r *cluster.Record) error {
		for _, id := range nodes(s) {
			m := r.Members[id]
			if m.Eligible {
				m.Eligible, m.Since, m.Reason = false, w.Clock.Now(), cmp.Or(s.Args[plan.ReasonOf(id)], s.Args["reason"])
				r.Members[id] = m
			}
		}
		return nil
	})
	return err
}

func (w *World) areEligible(_ context.Context, s plan.Step) (bool, string, error) {
	r := w.Records.Record()
	for _, id := range nodes(s) {
		if !r.Members[id].Eligible {
			return false, string(id) + " is not eligible", nil
		}
	}
	return r.Mode == cluster.ModeSync, fmt.Sprintf("revision %d", r.Revision), nil
}

func (w *World) makeEligible(ctx context.Context, s plan.Step, _ func(string)) error {
	_, err := w.Records.Update(ctx, func(r *cluster.Record) error {
		for _, id := range nodes(s) {
			m := r.Members[id]
			if m.Fenced {
				return fmt.Errorf("%w: record %s eligible: it is fenced", execute.ErrRefused, id)
			}
			m.Eligible, m.Since, m.Reason = true, w.Clock.Now(), "it confirmed everything the primary had flushed"
			r.Members[id] = m
		}
		r.SyncSet, r.SyncSince, r.Mode = decide.ParseSyncNames(s.Args["names"]), w.Clock.Now(), cluster.ModeSync
		return nil
	})
	return err
}

func (w *World) setRecorded(_ context.Context, s plan.Step) (bool, string, error) {
	r := w.Records.Record()
	return decide.SameSet(r.SyncSet, decide.ParseSyncNames(s.Args["names"])) && string(r.Mode) == s.Args["mode"],
		fmt.Sprintf("%s, revision %d", r.Mode, r.Revision), nil
}

func (w *World) recordSet(ctx context.Context, s plan.Step, _ func(string)) error {
	_, err := w.Records.Update(ctx, func(r *cluster.Record) error {
		set := decide.ParseSyncNames(s.Args["names"])
		for id, m := range r.Members {
			if m.Eligible && id != r.Primary && slices.Contains(r.SyncSet.Members, id) && !slices.Contains(set.Members, id) {
				return fmt.Errorf("%w: record the sync set %q: %s would leave it while it is eligible", execute.ErrRefused, s.Args["names"], id)
			}
		}
		r.SyncSet, r.SyncSince, r.Mode = set, w.Clock.Now(), cluster.Mode(s.Args["mode"])
		return nil
	})
	return err
}

func (w *World) wantRecorded(_ context.Context, s plan.Step) (bool, string, error) {
	r := w.Records.Record()
	return string(r.WantMode) == s.Args["mode"], string(r.WantMode), nil
}

func (w *World) recordWant(ctx context.Context, s plan.Step, _ func(string)) error {
	_, err := w.Records.Update(ctx, func(r *cluster.Record) error {
		r.WantMode, r.WantSince = cluster.Mode(s.Args["mode"]), w.Clock.Now()
		return nil
	})
	return err
}

func (w *World) stoppingRecorded(_ context.Context, s plan.Step) (bool, string, error) {
	return w.Records.Record().Stopping == s.Node, "recorded", nil
}

func (w *World) recordStopping(ctx context.Context, s plan.Step, _ func(string)) error {
	_, err := w.Records.Update(ctx, func(r *cluster.Record) error { r.Stopping = s.Node; return nil })
	return err
}

func (w *World) primaryRecorded(_ context.Context, s plan.Step) (bool, string, error) {
	r := w.Records.Record()
	return r.Primary == s.Node, fmt.Sprintf("term %d, timeline %d", r.Term, r.Timeline), nil
}

// recordPrimary appends to the history what the promotion made, and raises the
// term. From here on the gate may open.
func (w *World) recordPrimary(ctx context.Context, s plan.Step, _ func(string)) error {
	srv, err := w.server(s.Node)
	if err != nil {
		return err
	}
	id, err := srv.Identity(ctx)
	if err != nil {
		return err
	}
	sw, err := srv.SwitchLSN(ctx, id.Timeline)
	if err != nil {
		return err
	}
	if id.InRecovery {
		return fmt.Errorf("%w: record %s as primary: it is in recovery", execute.ErrRefused, s.Node)
	}
	_, err = w.Records.Update(ctx, func(r *cluster.Record) error {
		if id.SystemIdentifier != r.SystemIdentifier || id.Timeline <= r.Timeline {
			return fmt.Errorf("%w: record %s as primary: timeline %d of system %d does not continue timeline %d of %d",
				execute.ErrRefused, s.Node, id.Timeline, id.SystemIdentifier, r.Timeline, r.SystemIdentifier)
		}
		old := r.Primary
		r.Term++
		r.Primary, r.Timeline, r.Stopping = s.Node, id.Timeline, ""
		r.Mode, r.SyncSet, r.SyncSince = cluster.ModeAsync, cluster.SyncSet{}, w.Clock.Now()
		r.History = append(r.History, cluster.HistoryEntry{SystemIdentifier: id.SystemIdentifier, Timeline: id.Timeline,
			SwitchLSN: sw, Node: s.Node, Term: r.Term, At: w.Clock.Now()})
		for nid, m := range r.Members {
			m.Eligible, m.Since = nid == s.Node, w.Clock.Now()
			switch {
			case nid == s.Node:
				m.Reason, m.LSN = "the primary", sw
			case nid == old:
				m.Fenced, m.Reason = true, "a former primary that has not followed since"
			default:
				m.Reason = "it has not confirmed the new primary's position yet"
			}
			r.Members[nid] = m
		}
		return nil
	})
	return err
}

func (w *World) memberRecorded(_ context.Context, s plan.Step) (bool, string, error) {
	m := w.Records.Record().Members[s.Node]
	return !m.Fenced, "no longer fenced", nil
}

func (w *World) recordMember(ctx context.Context, s plan.Step, _ func(string)) error {
	return w.member(ctx, s.Node, func(m *cluster.Member) {
		m.Fenced, m.Astray, m.Eligible, m.Since, m.Reason = false, false, false, w.Clock.Now(), "it follows and has not confirmed the primary's position yet"
	})
}

func (w *World) promisesVoid(context.Context, plan.Step) (bool, string, error) {
	r := w.Records.Record()
	for id, m := range r.Members {
		if m.Promised > r.Term {
			return false, fmt.Sprintf("%s has promised for term %d", id, m.Promised), nil
		}
	}
	return true, fmt.Sprintf("revision %d", r.Revision), nil
}

func (w *World) voidPromises(ctx context.Context, _ plan.Step, _ func(string)) error {
	_, err := w.Records.Update(ctx, func(r *cluster.Record) error {
		for id, m := range r.Members {
			if m.Promised > r.Term {
				m.Promised, m.PromisedLSN = 0, 0
				r.Members[id] = m
			}
		}
		return nil
	})
	return err
}
