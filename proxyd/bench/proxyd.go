package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// setting is one line of proxyd's configuration.
type setting struct{ table, key, value string }

// proxyd starts the lab's proxyd in place of the one that the lab has started,
// with other settings. The lab writes its configuration anew whenever it comes
// up, so that these end with the measurement.
func (l *lab) proxyd(ctx context.Context, settings []setting) (*daemon, error) {
	text, err := os.ReadFile(l.Config)
	if err != nil {
		return nil, fmt.Errorf("read the lab's configuration: %w", err)
	}
	if l.ownProgram == "" {
		// As the lab runs it: at a place that its account can reach.
		if l.ownProgram, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", l.ProxydPID)); err != nil {
			return nil, fmt.Errorf("find the lab's proxyd: %w", err)
		}
		if err := endProcess(ctx, l.ProxydPID); err != nil {
			return nil, fmt.Errorf("stop the lab's proxyd: %w", err)
		}
	}
	const config = "pgtandem.toml"
	t := target{name: "proxyd", host: l.Proxy.Host, port: l.Proxy.Port}
	return startDaemon(ctx, l, t, l.ownProgram,
		func(dir string) []string { return []string{"--config", filepath.Join(dir, config)} },
		func(string) map[string]string { return map[string]string{config: withSettings(string(text), settings)} })
}

// endProcess ends one that is not our child.
func endProcess(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for sig := syscall.SIGTERM; ; sig = 0 {
		err := syscall.Kill(pid, sig)
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", pid, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// withSettings puts settings into the text of a configuration: in place of a
// line that is there, else into their table, which is added where it is missing.
func withSettings(text string, settings []setting) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for _, s := range settings {
		line := s.key + " = " + s.value
		head := slices.Index(lines, "["+s.table+"]")
		if head < 0 {
			lines = append(lines, "", "["+s.table+"]", line)
			continue
		}
		end := slices.IndexFunc(lines[head+1:], func(l string) bool { return strings.HasPrefix(l, "[") })
		if end < 0 {
			end = len(lines) - head - 1
		}
		body := lines[head+1 : head+1+end]
		if i := slices.IndexFunc(body, func(l string) bool { return strings.HasPrefix(l, s.key+" = ") }); i >= 0 {
			body[i] = line
			continue
		}
		lines = slices.Insert(lines, head+1, line)
	}
	return strings.Join(lines, "\n") + "\n"
}
