package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

// keep leaves everything that a person needs to understand a run: the faults
// as they were made, the clients' histories, what the daemon said, and every
// log. It gives the directory.
func keep(c *cluster, r result, acts []act, ops []history.Op, since uint64, o options) (dir string, err error) {
	dir = filepath.Join(o.evidence, fmt.Sprintf("%d-nodes-seed-%d", r.nodes, r.seed))
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("make room for the evidence: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("keep the evidence: %w", err)
	}
	r.evidence = dir
	write := func(name string, fill func(io.Writer) error) {
		f, e := os.Create(filepath.Join(dir, name))
		if e != nil {
			err = errors.Join(err, fmt.Errorf("keep the evidence: %w", e))
			return
		}
		if e := errors.Join(fill(f), f.Close()); e != nil {
			err = errors.Join(err, fmt.Errorf("keep the evidence: %s: %w", name, e))
		}
	}
	write("findings.txt", func(w io.Writer) error { _, err := fmt.Fprintln(w, r.line(1, 1)+"\n"+r.complaint(o)); return err })
	slices.SortFunc(acts, func(a, b act) int { return int(a.At - b.At) })
	write("faults.txt", func(w io.Writer) error {
		for _, a := range acts {
			if _, err := fmt.Fprintln(w, a); err != nil {
				return err
			}
		}
		return nil
	})
	write("history.jsonl", func(w io.Writer) error { return history.Write(w, ops) })
	ctx, cancel := within(10 * time.Second)
	defer cancel()
	asJSON := func(v any, e error) func(io.Writer) error {
		return func(w io.Writer) error {
			if e != nil {
				_, err := fmt.Fprintln(w, e) // a daemon that says nothing is evidence too
				return err
			}
			j := json.NewEncoder(w)
			j.SetIndent("", " ")
			return j.Encode(v)
		}
	}
	write("held.json", asJSON(r.held, nil))
	state, e := c.daemon.State(ctx)
	write("state.json", asJSON(state, e))
	events, e := c.daemon.Events(ctx, since, 10000)
	write("events.json", asJSON(events, e))
	operations, e := c.daemon.Operations(ctx)
	write("operations.json", asJSON(operations, e))
	return dir, errors.Join(err, copyLogs(c.Dir, dir))
}

// copyLogs copies the daemon's and the servers' logs.
func copyLogs(lab, dir string) error {
	var logs []string
	for _, pattern := range []string{"log/*.log", "*/postgresql.log"} {
		found, err := filepath.Glob(filepath.Join(lab, pattern))
		if err != nil {
			return fmt.Errorf("find the logs: %w", err)
		}
		logs = append(logs, found...)
	}
	for _, log := range logs {
		rel, err := filepath.Rel(lab, log)
		if err != nil {
			return fmt.Errorf("keep %s: %w", log, err)
		}
		b, err := os.ReadFile(log)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its node is being made anew
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", log, err)
		}
		to := filepath.Join(dir, filepath.ToSlash(rel))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fmt.Errorf("keep %s: %w", log, err)
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			return fmt.Errorf("keep %s: %w", log, err)
		}
	}
	return nil
}
