package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// registry is where each user's labs are noted, one file for each, so that the
// console finds the only running one.
func registry() (string, error) {
	if d := os.Getenv("PGTANDEM_LABS"); d != "" {
		return d, nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "pgtandem", "labs"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the list of labs: %w", err)
	}
	return filepath.Join(home, ".local", "state", "pgtandem", "labs"), nil
}

func (l *Lab) note() (string, error) {
	r, err := registry()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(l.Dir))
	return filepath.Join(r, hex.EncodeToString(sum[:8])), nil
}

func (l *Lab) register() error {
	f, err := l.note()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
		return fmt.Errorf("note the lab: %w", err)
	}
	if err := os.WriteFile(f, []byte(l.Dir+"\n"), 0o644); err != nil {
		return fmt.Errorf("note the lab: %w", err)
	}
	return nil
}

func (l *Lab) unregister() error {
	f, err := l.note()
	if err != nil {
		return err
	}
	if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the lab: %w", err)
	}
	return nil
}

// Running lists the labs of this user whose daemon runs.
func Running() ([]*Lab, error) {
	r, err := registry()
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the labs: %w", err)
	}
	var out []*Lab
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(r, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("list the labs: %w", err)
		}
		l, err := Open(strings.TrimSpace(string(b)))
		if err != nil {
			continue // it was removed by hand
		}
		if _, up := l.proxydPID(); up {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *Lab) int { return strings.Compare(a.Dir, b.Dir) })
	return out, nil
}

// SocketOfOnly is the control socket of the only running lab.
func SocketOfOnly() (string, error) {
	labs, err := Running()
	if err != nil {
		return "", err
	}
	switch len(labs) {
	case 0:
		return "", fmt.Errorf("%w running: start one with: pgtandem lab up", ErrNoLab)
	case 1:
		return labs[0].Socket(), nil
	}
	dirs := make([]string, len(labs))
	for i, l := range labs {
		dirs[i] = l.Socket()
	}
	return "", fmt.Errorf("%d labs are running: name one with --socket: %s", len(labs), strings.Join(dirs, ", "))
}
