package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// microsPerTick: Linux reports processor time in hundredths of a second to
// every program (proc(5), sysconf(_SC_CLK_TCK)).
const microsPerTick = 10000

// family is a process and all below it, by their ids. pgpool's work is its
// children's.
type family map[int]uint64 // processor time of each, in ticks

func familyOf(pid int) (family, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look at the processes: %w", err)
	}
	parents, ticks := map[int]int{}, map[int]uint64{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended meanwhile
		}
		if parents[id], ticks[id], err = parseStat(string(stat)); err != nil {
			return nil, err
		}
	}
	if _, alive := parents[pid]; !alive {
		return nil, fmt.Errorf("process %d is gone", pid)
	}
	f := family{}
	f.add(pid, parents, ticks)
	return f, nil
}

func (f family) add(pid int, parents map[int]int, ticks map[int]uint64) {
	f[pid] = ticks[pid]
	for child, parent := range parents {
		if parent == pid && child != pid {
			f.add(child, parents, ticks)
		}
	}
}

// cpuTicks sums the processor time of a process and of all below it; none of
// no process.
func cpuTicks(pid int) (sum uint64, err error) {
	if pid == 0 {
		return 0, nil
	}
	f, err := familyOf(pid)
	if err != nil {
		return 0, err
	}
	for _, ticks := range f {
		sum += ticks
	}
	return sum, nil
}

// parseStat reads the parent and the user and system time of /proc/PID/stat.
// The name in parentheses may hold anything, a parenthesis included.
func parseStat(stat string) (parent int, ticks uint64, err error) {
	i := strings.LastIndexByte(stat, ')')
	f := strings.Fields(stat[i+1:])
	if i < 0 || len(f) < 13 {
		return 0, 0, fmt.Errorf("/proc/PID/stat is not as proc(5) has it: %q", stat)
	}
	if parent, err = strconv.Atoi(f[1]); err != nil {
		return 0, 0, fmt.Errorf("/proc/PID/stat: parent: %w", err)
	}
	for _, s := range []string{f[11], f[12]} {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/PID/stat: time: %w", err)
		}
		ticks += n
	}
	return parent, ticks, nil
}

// The figures of /proc/PID/status that are used here.
const (
	resident = "VmRSS"
	peak     = "VmHWM"
)

// memoryKB sums a figure of memory over a process and all below it, in
// kilobytes of 1024 bytes. Pages that they share count once for each.
func memoryKB(pid int, figure string) (sum float64, err error) {
	if pid == 0 {
		return 0, nil
	}
	f, err := familyOf(pid)
	if err != nil {
		return 0, err
	}
	for id := range f {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return 0, fmt.Errorf("read the memory of process %d: %w", id, err)
		}
		kb, err := parseStatus(string(status), figure)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", id, err)
		}
		sum += kb
	}
	return sum, nil
}

func parseStatus(status, figure string) (float64, error) {
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, figure+":")
		if !ok {
			continue
		}
		f := strings.Fields(value)
		if len(f) != 2 || f[1] != "kB" {
			return 0, fmt.Errorf("/proc/PID/status is not as proc(5) has it: %q", line)
		}
		return strconv.ParseFloat(f[0], 64)
	}
	return 0, fmt.Errorf("/proc/PID/status has no line %s", figure)
}

// forgetPeak makes what a process and all below it have now its peak (proc(5),
// clear_refs).
func forgetPeak(pid int) error {
	if pid == 0 {
		return nil
	}
	f, err := familyOf(pid)
	if err != nil {
		return err
	}
	for id := range f {
		err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", id), []byte("5"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget the peak memory of process %d: %w", id, err)
		}
	}
	return nil
}
