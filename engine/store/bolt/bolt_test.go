package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
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

func TestDamagedFileIsExplainedAndKept(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, bolt.FileName)
	junk := []byte(strings.Repeat("not a database ", 4096))
	if err := os.WriteFile(file, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := bolt.Open(dir, bolt.Options{})
	if err == nil || !strings.Contains(err.Error(), "move it aside") {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != string(junk) {
		t.Error("the damaged file was changed")
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

// writeForEver saves the record again and again and says each revision once it
// is promised to be on disk.
func writeForEver(dir string) {
	s, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	ctx, r := context.Background(), cluster.Record{}
	if r, err = s.Load(ctx); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		r.Term++
		if r, err = s.Save(ctx, r); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(r.Revision)
	}
}

// What was said to be saved is there after kill -9, however often.
func TestKilledWriterLosesNothing(t *testing.T) {
	dir := t.TempDir()
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var last uint64
		lines := bufio.NewScanner(out)
		for n := 0; n < 10+round && lines.Scan(); n++ {
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				t.Fatalf("the writer said %q", lines.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		s := open(t, dir)
		r, err := s.Load(t.Context())
		if err != nil || r.Revision < last || uint64(r.Term) != r.Revision {
			t.Fatalf("round %d: revision %d was promised, the store has %+v, %v", round, last, r, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
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
