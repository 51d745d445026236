package bolt_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/plan"
	"github.com/pgtandem/pgtandem/engine/store"
	"github.com/pgtandem/pgtandem/engine/store/bolt"
	"github.com/pgtandem/pgtandem/engine/store/storetest"
)

func open(t *testing.T, dir string) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(dir, bolt.Options{EventsKept: 10, LockTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	dirs := map[store.Store]string{}
	storetest.Run(t, func(t *testing.T) store.Store {
		dir := t.TempDir()
		s := open(t, dir)
		dirs[s] = dir
		return s
	}, func(t *testing.T, s store.Store) store.Store {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t, dirs[s])
	})
}

func TestASecondProcessIsNamed(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := bolt.Open(dir, bolt.Options{LockTimeout: 50 * time.Millisecond})
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("%v", err)
	}
}

// A damaged store is told as such with what to do, is left as it is, and is
// never taken for a fresh start.
func TestDamagedFileIsExplainedAndKept(t *testing.T) {
	for _, tt := range []struct {
		story  string
		damage func(b []byte) []byte
	}{
		{"it is something else", func(b []byte) []byte { return []byte(strings.Repeat("not a database ", 4096)) }},
		{"it is empty", func([]byte) []byte { return nil }},
		{"it is cut short", func(b []byte) []byte { return b[:len(b)/2] }},
		{"both of its meta pages are overwritten", func(b []byte) []byte { clear(b[:8192]); return b }},
		{"everything but its meta pages is overwritten", func(b []byte) []byte {
			for i := 8192; i < len(b); i++ {
				b[i] = 0xFF
			}
			return b
		}},
		{"its pages are zeroes but for the meta pages", func(b []byte) []byte { clear(b[8192:]); return b }},
		{"the record is no JSON", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`{"Revision"`), []byte(`["Revision"`)) }},
		{"an operation is no JSON", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`{"ID":"20`), []byte(`["ID":"20`)) }},
	} {
		t.Run(tt.story, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			fill(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, bolt.FileName)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			junk := tt.damage(b)
			if err := os.WriteFile(file, junk, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = bolt.Open(dir, bolt.Options{LockTimeout: 50 * time.Millisecond})
			if !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "move it aside") || !strings.Contains(err.Error(), file) {
				t.Errorf("%v", err)
			}
			if got, _ := os.ReadFile(file); !bytes.Equal(got, junk) {
				t.Error("the damaged file was changed")
			}
			if err := os.Rename(file, file+".damaged"); err != nil {
				t.Fatal(err)
			}
			open(t, dir) // the remedy works
		})
	}
}

func fill(t *testing.T, s *bolt.Store) {
	t.Helper()
	ctx := t.Context()
	if _, err := s.Save(ctx, cluster.Record{Term: 3, Members: map[cluster.NodeID]cluster.Member{"pgsql1": {Eligible: true}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if err := s.PutOperation(ctx, plan.Operation{ID: fmt.Sprintf("20260102T030405.%03d-%d", i, i), Outcome: plan.Running}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendEvents(ctx, cluster.Event{Text: strings.Repeat("a long story ", 100)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANewerStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, bolt.FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("2")) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = bolt.Open(dir, bolt.Options{})
	if !errors.Is(err, store.ErrNewer) || !strings.Contains(err.Error(), "2, this program knows up to 1") {
		t.Errorf("%v", err)
	}
}

// A start that was cut off before the store was whole leaves nothing that a
// later start would stumble over.
func TestAStoreAppearsWhole(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, herr := filepath.Glob(filepath.Join(dir, ".*"))
	if want := []string{filepath.Join(dir, bolt.FileName), filepath.Join(dir, bolt.FileName+".pid")}; !slices.Equal(names, want) || len(hidden) > 0 {
		t.Errorf("%q and %q, %v", names, hidden, errors.Join(err, herr))
	}
}

func TestTheOldestFinishedOperationsAreDropped(t *testing.T) {
	s, err := bolt.Open(t.TempDir(), bolt.Options{OperationsKept: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for i := range 6 {
		op := plan.Operation{ID: fmt.Sprint(i), Outcome: plan.Done, Ended: time.Now()}
		if i == 0 {
			op.Outcome, op.Ended = plan.Running, time.Time{}
		}
		if err := s.PutOperation(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	ops, err := s.Operations(t.Context(), 0)
	for _, op := range ops {
		ids = append(ids, op.ID)
	}
	if got := strings.Join(ids, " "); got != "5 4 0" || err != nil {
		t.Errorf("%s, %v; want the two newest and the one that still runs", got, err)
	}
}

func TestAClosedLogRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendEvents(t.Context(), cluster.Event{Text: "late"}); err == nil {
		t.Error("an event was accepted after Close and would be lost without a word")
	}
}

func TestFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	fi, err := os.Stat(filepath.Join(dir, bolt.FileName))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

const writerEnv = "PGTANDEM_TEST_STORE"

// TestMain doubles as the writer that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

// writeForEver tells an event, saves the record and journals an operation, again
// and again, and says each revision once all of it is promised to be on disk.
func writeForEver(dir string) {
	die := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	s, err := bolt.Open(dir, bolt.Options{})
	die(err)
	ctx := context.Background()
	r, err := s.Load(ctx)
	die(err)
	for {
		r.Term++
		_, err = s.AppendEvents(ctx, cluster.Event{Text: fmt.Sprint(uint64(r.Term))})
		die(err)
		r, err = s.Save(ctx, r)
		die(err)
		die(s.PutOperation(ctx, plan.Operation{ID: fmt.Sprintf("%09d", r.Revision)}))
		fmt.Println(r.Revision)
	}
}

// What was said to be saved is there after kill -9, however often, and so are
// the events that came before it.
func TestKilledWriterLosesNothing(t *testing.T) {
	dir := t.TempDir()
	for round := range 8 {
		last := killWriter(t, dir, 10+round)
		s := open(t, dir)
		r, err := s.Load(t.Context())
		if err != nil || r.Revision < last || uint64(r.Term) != r.Revision {
			t.Fatalf("round %d: revision %d was promised, the store has %+v, %v", round, last, r, err)
		}
		if _, err := s.Operation(t.Context(), fmt.Sprintf("%09d", last)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		seq, err := s.LastSeq(t.Context())
		if err != nil || seq < r.Revision {
			t.Fatalf("round %d: the last event is %d, and that of the record %d, %v", round, seq, r.Revision, err)
		}
		all, err := s.Events(t.Context(), 0, 0)
		if err != nil || uint64(len(all)) != seq {
			t.Fatalf("round %d: %d events of %d, %v", round, len(all), seq, err)
		}
		for i, e := range all {
			if e.Seq != uint64(i+1) {
				t.Fatalf("round %d: event %d is %+v", round, i+1, e)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killWriter runs a writer, kills it when it has made so many promises, and
// gives the last one.
func killWriter(t *testing.T, dir string, promises int) (last uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; n < promises && lines.Scan(); n++ {
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Fatalf("the writer said %q", lines.Text())
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return last
}

func BenchmarkSave(b *testing.B) {
	s, err := bolt.Open(b.TempDir(), bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	r := cluster.Record{Members: map[cluster.NodeID]cluster.Member{"pgsql1": {}, "pgsql2": {}}}
	for b.Loop() {
		if r, err = s.Save(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// An event on the failover's path must cost no fsync of its own.
func BenchmarkAppendEvents(b *testing.B) {
	s, err := bolt.Open(b.TempDir(), bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for b.Loop() {
		if _, err := s.AppendEvents(b.Context(), cluster.Event{Text: "pgsql1 does not answer"}); err != nil {
			b.Fatal(err)
		}
	}
}
