package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

func TestHowAnAttemptEnded(t *testing.T) {
	dialed := func(errno syscall.Errno) error {
		return fmt.Errorf("connect: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)})
	}
	for _, tt := range []struct {
		story string
		err   error
		want  cluster.Reach
	}{
		{"nothing listens", dialed(syscall.ECONNREFUSED), cluster.ReachRefused},
		{"starting up, or shutting down", &pgconn.PgError{Code: "57P03"}, cluster.ReachStarting},
		{"cut off by a shutdown", &pgconn.PgError{Code: "57P01"}, cluster.ReachStarting},
		{"cut off by a crash", &pgconn.PgError{Code: "57P02"}, cluster.ReachStarting},
		{"wrong password", &pgconn.PgError{Code: "28P01"}, cluster.ReachRejected},
		{"full", &pgconn.PgError{Code: "53300"}, cluster.ReachRejected},
		{"our deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), cluster.ReachTimeout},
		{"a read that waited too long", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, cluster.ReachTimeout},
		{"TCP gave up", dialed(syscall.ETIMEDOUT), cluster.ReachTimeout},
		{"the server went in the middle", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), cluster.ReachBroken},
		{"reset", dialed(syscall.ECONNRESET), cluster.ReachBroken},
		{"no route", dialed(syscall.EHOSTUNREACH), cluster.ReachBroken},
		{"no such name", &net.DNSError{Err: "no such host", Name: "pgsql1"}, cluster.ReachBroken},
		{"we have no file left to open", dialed(syscall.EMFILE), cluster.ReachRejected},
		{"our password file is not there", fmt.Errorf("password: %w", os.ErrNotExist), cluster.ReachRejected},
		{"a certificate that we do not trust", errors.New("x509: certificate signed by unknown authority"), cluster.ReachRejected},
	} {
		t.Run(tt.story, func(t *testing.T) {
			if got := classify(tt.err); got != tt.want {
				t.Errorf("%v is %s, want %s", tt.err, got, tt.want)
			}
		})
	}
}

// The stories are told by the time, in milliseconds, at which each attempt
// began and how it ended; a period is 100 ms.
func TestFailuresAreCountedAPeriodApart(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	starting := &pgconn.PgError{Code: "57P03"}
	type try struct {
		at  int
		err error
	}
	for _, tt := range []struct {
		story    string
		tries    []try
		failures int
		since    int
	}{
		{"one failure", []try{{0, refused}}, 1, 0},
		{"looked at often, it still is one failure", []try{{0, refused}, {20, refused}, {40, refused}, {99, refused}}, 1, 0},
		{"a period later it is another", []try{{0, refused}, {50, refused}, {100, refused}, {199, refused}}, 2, 0},
		{"after a long wait for one answer the next ones do not catch up", []try{{0, context.DeadlineExceeded}, {1000, refused}, {1020, refused}, {1040, refused}}, 2, 0},
		{"an answer ends the count", []try{{0, refused}, {100, refused}, {200, nil}, {300, refused}}, 1, 300},
		{"a server that speaks after a silence voids older evidence", []try{{0, refused}, {100, starting}, {120, refused}}, 2, 100},
	} {
		t.Run(tt.story, func(t *testing.T) {
			epoch := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			o := New(Options{Nodes: []cluster.Node{{ID: "pgsql1"}}, Check: Check{Period: 100 * time.Millisecond}, Now: func() time.Time { return epoch }})
			for _, try := range tt.tries {
				at := epoch.Add(time.Duration(try.at) * time.Millisecond)
				if try.err == nil {
					o.answered(o.nodes["pgsql1"], cluster.NodeFacts{LastTry: at, LastOK: at})
				} else {
					o.failed(o.nodes["pgsql1"], at, try.err)
				}
			}
			n := o.Snapshot().Node("pgsql1")
			if since := int(n.ReachSince.Sub(epoch).Milliseconds()); n.Failures != tt.failures || since != tt.since {
				t.Errorf("%d failures since %d ms; want %d since %d", n.Failures, since, tt.failures, tt.since)
			}
		})
	}
}

// Changed is for what a decision may depend on: a position that moves is not.
func TestWhatIsWorthTelling(t *testing.T) {
	base := cluster.NodeFacts{Reach: cluster.ReachOK, Role: cluster.RolePrimary, Timeline: 1, FlushLSN: 100,
		Senders: []cluster.Sender{{ApplicationName: "pgsql2", State: "streaming", SyncState: "sync", FlushLSN: 100}}}
	for _, tt := range []struct {
		story  string
		change func(*cluster.NodeFacts)
		want   bool
	}{
		{"nothing", func(*cluster.NodeFacts) {}, false},
		{"positions", func(n *cluster.NodeFacts) {
			n.FlushLSN = 200
			n.Senders = []cluster.Sender{{ApplicationName: "pgsql2", State: "streaming", SyncState: "sync", FlushLSN: 200}}
		}, false},
		{"a sender that falls back to catching up", func(n *cluster.NodeFacts) {
			n.Senders = []cluster.Sender{{ApplicationName: "pgsql2", State: "catchup", SyncState: "sync"}}
		}, true},
		{"a sender is gone", func(n *cluster.NodeFacts) { n.Senders = nil }, true},
		{"promoted", func(n *cluster.NodeFacts) { n.Timeline = 2 }, true},
		{"restarted between two looks", func(n *cluster.NodeFacts) { n.StartedAt = time.Unix(1, 0) }, true},
		{"the setting changed", func(n *cluster.NodeFacts) { n.SyncStandbyNames = "pgsql2" }, true},
		{"replay was paused", func(n *cluster.NodeFacts) { n.ReplayPaused = true }, true},
		{"a file has an error", func(n *cluster.NodeFacts) { n.ConfigErrors = []string{"postgresql.conf:3"} }, true},
	} {
		t.Run(tt.story, func(t *testing.T) {
			n := base
			tt.change(&n)
			if got := Notable(base, n); got != tt.want {
				t.Errorf("told: %v, want %v", got, tt.want)
			}
		})
	}
}
