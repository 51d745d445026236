package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// target is one way to the primary.
type target struct {
	name string
	host string
	port int
	pid  int // of the proxy, with all its children; 0 for none

	// prepared is the database to be used with named statements, where that is
	// another one.
	prepared string
}

// sample is one run of pgbench.
type sample struct {
	tps       float64 // queries for each second, connecting not counted
	latencyMS float64 // average
	cpuUS     float64 // the proxy's own processor time for each query, in microseconds
}

// measure runs pgbench twice: first so that each client does next to nothing
// but log in, and then for the time asked for. What the first cost the proxy is
// taken from what the second did, because a login costs as much as hundreds of
// queries and is measured nowhere here.
func (l *lab) measure(ctx context.Context, t *target, load load, o options) (sample, error) {
	var ticks [3]uint64
	var out string
	var err error
	for i, length := range [][]string{nil, {"-t", "1"}, {"-T", strconv.Itoa(o.seconds)}} {
		if length != nil {
			if out, err = l.load(ctx, t, load, o, length...); err != nil {
				return sample{}, err
			}
		}
		if ticks[i], err = cpuTicks(t.pid); err != nil {
			return sample{}, err
		}
	}
	logins, all := ticks[1]-ticks[0], ticks[2]-ticks[1]
	return parseRun(out, all-min(logins, all))
}

// load runs pgbench for a length given as arguments, and gives its report.
func (l *lab) load(ctx context.Context, t *target, load load, o options, length ...string) (string, error) {
	database := l.Database
	if load.protocol == "prepared" && t.prepared != "" {
		database = t.prepared
	}
	args := append([]string{"-n", "-S", "-M", load.protocol, "-c", strconv.Itoa(load.clients), "-j", strconv.Itoa(o.jobs)}, length...)
	return l.pgbench(ctx, t, database, args...)
}

var (
	tpsLine       = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \((?:without initial connection time|excluding connections establishing)\)`)
	latencyLine   = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
	processedLine = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
	failedLine    = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

// parseRun reads pgbench's report. A run with failed transactions is an error:
// its rate would be that of another load.
func parseRun(out string, ticks uint64) (sample, error) {
	if n, err := field(failedLine, out); err == nil && n > 0 {
		return sample{}, fmt.Errorf("%.0f transactions failed:\n%s", n, out)
	}
	tps, err := field(tpsLine, out)
	if err != nil {
		return sample{}, err
	}
	latency, err := field(latencyLine, out)
	if err != nil {
		return sample{}, err
	}
	processed, err := field(processedLine, out)
	if err != nil {
		return sample{}, err
	}
	return sample{tps: tps, latencyMS: latency, cpuUS: float64(ticks) * microsPerTick / max(processed, 1)}, nil
}

func field(line *regexp.Regexp, out string) (float64, error) {
	m := line.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench's report has no line %s:\n%s", line, out)
	}
	return strconv.ParseFloat(m[1], 64)
}

// microsPerTick: Linux reports processor time in hundredths of a second to
// every program (proc(5), sysconf(_SC_CLK_TCK)).
const microsPerTick = 10000

// cpuTicks sums the processor time of a process and of all below it. pgpool's
// work is its children's.
func cpuTicks(pid int) (uint64, error) {
	if pid == 0 {
		return 0, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("read the processes' times: %w", err)
	}
	parents, ticks := map[int]int{}, map[int]uint64{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		if parents[id], ticks[id], err = parseStat(string(stat)); err != nil {
			return 0, err
		}
	}
	if _, alive := parents[pid]; !alive {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	return sumBelow(pid, parents, ticks), nil
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

func sumBelow(pid int, parents map[int]int, ticks map[int]uint64) uint64 {
	sum := ticks[pid]
	for child, parent := range parents {
		if parent == pid && child != pid {
			sum += sumBelow(child, parents, ticks)
		}
	}
	return sum
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func medianOf(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return median(values)
}

// table compares every target with the first.
func table(targets []*target, samples [][]sample) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tqueries/s\tof direct\tlatency ms\tproxy CPU us/query\t")
	rate := func(s sample) float64 { return s.tps }
	base := medianOf(samples[0], rate)
	for i, t := range targets {
		cpu := "-"
		if t.pid != 0 {
			cpu = fmt.Sprintf("%.1f", medianOf(samples[i], func(s sample) float64 { return s.cpuUS }))
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.0f %%\t%.3f\t%s\t\n", t.name, medianOf(samples[i], rate), 100*medianOf(samples[i], rate)/base,
			medianOf(samples[i], func(s sample) float64 { return s.latencyMS }), cpu)
	}
	_ = w.Flush() // into memory
	return b.String()
}
