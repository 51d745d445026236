package steps

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/sql"
	"github.com/pgtandem/pgtandem/engine/plan"
)

// stoppedAt is a host whose server is stopped and says this of itself.
type stoppedAt struct {
	Host
	cd ControlData
}

func (h stoppedAt) ControlData(context.Context) (ControlData, error) { return h.cd, nil }

func TestCompatible(t *testing.T) {
	for _, tt := range []struct {
		story string
		cd    ControlData
		want  bool
	}{
		{"a standby that was stopped", ControlData{State: "shut down in recovery", Timeline: 2, CheckpointLSN: 900}, true},
		{"a standby that crashed, or a directory that was rewound", ControlData{State: "in archive recovery", Timeline: 2, CheckpointLSN: 900}, true},
		{"a fresh copy of the primary", ControlData{State: "in production", Timeline: 2, CheckpointLSN: 900, BackupLabel: true}, true},
		{"it took writes on the primary's timeline and crashed", ControlData{State: "in production", Timeline: 2, CheckpointLSN: 900}, false},
		{"it took writes on the primary's timeline and was stopped: pg_rewind sees nothing to do", ControlData{State: "shut down", Timeline: 2, CheckpointLSN: 900}, false},
		{"an old primary that was stopped before the fork", ControlData{State: "shut down", Timeline: 1, CheckpointLSN: 400}, true},
		{"an old primary that went past the fork", ControlData{State: "shut down", Timeline: 1, CheckpointLSN: 600}, false},
		{"an old primary that crashed before the fork, as far as is known", ControlData{State: "in production", Timeline: 1, CheckpointLSN: 400}, false},
		{"a timeline that nobody recorded", ControlData{State: "shut down in recovery", Timeline: 3, CheckpointLSN: 400}, false},
		{"another system", ControlData{SystemIdentifier: 8, State: "shut down in recovery", Timeline: 2}, false},
	} {
		t.Run(tt.story, func(t *testing.T) {
			w, _ := silent(cluster.Record{Term: 2, Primary: "pgsql1", SystemIdentifier: 7, Timeline: 2, History: []cluster.HistoryEntry{
				{SystemIdentifier: 7, Timeline: 1, Node: "pgsql2", Term: 1}, {SystemIdentifier: 7, Timeline: 2, SwitchLSN: 500, Node: "pgsql1", Term: 2}}})
			if tt.cd.SystemIdentifier == 0 {
				tt.cd.SystemIdentifier = 7
			}
			w.Hosts["pgsql2"] = stoppedAt{cd: tt.cd}
			got, saw, err := Doers(w)[plan.NodeRewind].Check(t.Context(), plan.Step{Node: "pgsql2"})
			if err != nil || got != tt.want {
				t.Errorf("%v (%s), %v; want %v", got, saw, err, tt.want)
			}
		})
	}
}

// A standby whose WAL is gone has nothing wrong with its history, and the control
// file of one that left it does not say so: only what was just rewound or copied
// is what is wanted.
func TestWhatMustBeOverwritten(t *testing.T) {
	for label, done := range map[bool]bool{false: false, true: true} {
		w, _ := silent(cluster.Record{Term: 1, Primary: "pgsql1", SystemIdentifier: 7, Timeline: 1, History: []cluster.HistoryEntry{{SystemIdentifier: 7, Timeline: 1, Node: "pgsql1", Term: 1}}})
		w.Hosts["pgsql2"] = stoppedAt{cd: ControlData{SystemIdentifier: 7, State: "in archive recovery", Timeline: 1, BackupLabel: label}}
		step := plan.Step{Node: "pgsql2", Args: map[string]string{"from": "pgsql1", "always": "true"}}
		for _, kind := range []plan.Kind{plan.NodeClone, plan.NodeRewind} {
			if got, saw, err := Doers(w)[kind].Check(t.Context(), step); err != nil || got != done {
				t.Errorf("%s, with a label %v: done %v (%s), %v", kind, label, got, saw, err)
			}
		}
	}
}

// primaryIs answers who it is.
type primaryIs struct {
	Server
	id sql.Identity
}

func (s primaryIs) Identity(context.Context) (sql.Identity, error) { return s.id, nil }

// Nothing is overwritten unless another node is known to hold everything.
func TestTheLastGoodCopyIsNotOverwritten(t *testing.T) {
	well := sql.Identity{SystemIdentifier: 7, Timeline: 2}
	for _, tt := range []struct {
		story   string
		primary sql.Identity
		system  uint64
		refused string
	}{
		{"the primary is well", well, 7, ""},
		{"the primary is in recovery", sql.Identity{InRecovery: true, SystemIdentifier: 7, Timeline: 2}, 7, "last good copy"},
		{"the primary is on another timeline", sql.Identity{SystemIdentifier: 7, Timeline: 1}, 7, "last good copy"},
		{"what is to be overwritten is of another system", well, 8, "another database system"},
	} {
		t.Run(tt.story, func(t *testing.T) {
			w, _ := silent(cluster.Record{Term: 2, Primary: "pgsql1", SystemIdentifier: 7, Timeline: 2})
			w.Servers["pgsql1"] = primaryIs{id: tt.primary}
			err := w.spare(t.Context(), stoppedAt{cd: ControlData{SystemIdentifier: tt.system}}, "pgsql2", "pgsql1")
			if tt.refused == "" && err != nil || tt.refused != "" && (!errors.Is(err, execute.ErrRefused) || !strings.Contains(err.Error(), tt.refused)) {
				t.Errorf("%v; want it refused, saying %q", err, tt.refused)
			}
		})
	}
}

// started is a host whose server somebody starts under our hands.
type started struct {
	hostOf
	running bool
	late    bool // it is started while its settings are written
	cd      ControlData
	did     []string
}

func (h *started) ControlData(context.Context) (ControlData, error) { return h.cd, nil }

func (h *started) Postmaster(context.Context) (cluster.Postmaster, int, error) {
	if h.running {
		return cluster.PostmasterRunning, 7, nil
	}
	return cluster.PostmasterStopped, 0, nil
}

func (h *started) Stop(_ context.Context, mode string) error {
	h.running = false
	h.did = append(h.did, "stop "+mode)
	return nil
}

func (h *started) ConfigureStandby(context.Context, cluster.Node, string) error {
	h.did = append(h.did, "configure")
	h.running = h.late
	return nil
}

// A rewound directory was started by its host before it was told whom to
// follow: the server would wait for ever, with no primary_conninfo.
func TestAServerStartedMeanwhileIsStoppedBeforeItIsConfigured(t *testing.T) {
	for _, tt := range []struct {
		state string
		late  bool
		want  string
	}{
		{"shut down in recovery", false, "stop fast, configure"},
		{"shut down in recovery", true, "stop fast, configure, stop fast"},
		{"shut down", false, "stop fast"}, // it was a second primary for a while
	} {
		state, want := tt.state, tt.want
		w, _ := silent(cluster.Record{Term: 1, Primary: "pgsql1", Timeline: 3})
		h := &started{running: true, late: tt.late, cd: ControlData{State: state, Timeline: 3}}
		w.Hosts["pgsql2"] = h
		err := Doers(w)[plan.NodeConfigure].Do(t.Context(), plan.Step{Node: "pgsql2", Args: map[string]string{"from": "pgsql1"}}, nil)
		if got := strings.Join(h.did, ", "); got != want || errors.Is(err, execute.ErrRefused) != (state == "shut down") {
			t.Errorf("%s: %s, %v", state, got, err)
		}
	}
}

// The record of a failover was lost, and the host of the old primary started it
// while the new one is stopped.
func TestAnOldPrimaryIsNotAdopted(t *testing.T) {
	w, _ := silent(cluster.Record{})
	delete(w.Hosts, "pgsql3")
	for timeline, refused := range map[cluster.Timeline]bool{1: false, 2: true} {
		w.Hosts["pgsql2"] = stoppedAt{cd: ControlData{SystemIdentifier: 7, State: "shut down", Timeline: timeline}}
		err := w.nobodyWentFurther(t.Context(), "pgsql1", sql.Identity{SystemIdentifier: 7, Timeline: 1})
		if errors.Is(err, execute.ErrRefused) != refused {
			t.Errorf("the other node is on timeline %d: %v", timeline, err)
		}
	}
}
