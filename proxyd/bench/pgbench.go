package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// load is what pgbench is asked to do.
type load struct {
	protocol string
	clients  int
}

func (l load) String() string { return fmt.Sprintf("%s, %d clients", l.protocol, l.clients) }

// loads are all pairs of the protocols and the numbers of clients asked for.
func (o options) loads() (all []load, err error) {
	clients, err := o.clients.numbers("clients")
	if err != nil {
		return nil, err
	}
	for _, protocol := range o.protocols {
		for _, n := range clients {
			all = append(all, load{protocol, n})
		}
	}
	return all, nil
}

// url names the target for pgx; the lab's password is no secret.
func (l *lab) url(t *target) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", l.User, l.Password, net.JoinHostPort(t.host, strconv.Itoa(t.port)), l.Database)
}

// pgbench runs it against a target and gives what it printed.
func (l *lab) pgbench(ctx context.Context, t *target, database string, args ...string) (string, error) {
	args = append(args, "-h", t.host, "-p", strconv.Itoa(t.port), "-U", l.User, database)
	cmd := exec.CommandContext(ctx, filepath.Join(l.Nodes[0].BinDirectory, "pgbench"), args...)
	mode := "disable"
	if t.tls {
		mode = "require"
	}
	cmd.Env = append(os.Environ(), "PGPASSWORD="+l.Password, "PGSSLMODE="+mode, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench against %s: %w\n%s", t.name, err, out)
	}
	return string(out), nil
}

func (l *lab) fill(ctx context.Context, t *target, scale int) error {
	_, err := l.pgbench(ctx, t, l.Database, "-i", "-q", "-s", strconv.Itoa(scale))
	return err
}

// selectOnly runs pgbench's select-only script, with more arguments, and gives
// its report.
func (b *bench) selectOnly(ctx context.Context, t *target, load load, more ...string) (string, error) {
	database := b.lab.Database
	if load.protocol == "prepared" && t.prepared != "" {
		database = t.prepared
	}
	args := append([]string{"-n", "-S", "-M", load.protocol, "-c", strconv.Itoa(load.clients), "-j", strconv.Itoa(min(b.jobs, load.clients))}, more...)
	return b.lab.pgbench(ctx, t, database, args...)
}

var (
	tpsLine       = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \((?:without initial connection time|excluding connections establishing)\)`)
	reconnectLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \((?:including reconnection times|including connections establishing)\)`)
	latencyLine   = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
	processedLine = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
	failedLine    = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

// sample is one run of pgbench.
type sample struct {
	tps       float64 // transactions for each second
	latencyMS float64 // average
	cpuUS     float64 // the proxy's own processor time for each transaction, in microseconds
}

func (s sample) String() string { return fmt.Sprintf("%8.0f /s %6.1f us", s.tps, s.cpuUS) }

// The figures of a sample.
func rate(s sample) float64    { return s.tps }
func latency(s sample) float64 { return s.latencyMS }
func cpu(s sample) float64     { return s.cpuUS }

// parseRun reads pgbench's report, with the line that has its rate. A run with
// failed transactions is an error: its rate would be that of another load.
func parseRun(out string, rate *regexp.Regexp, ticks uint64) (sample, error) {
	if n, err := field(failedLine, out); err == nil && n > 0 {
		return sample{}, fmt.Errorf("%.0f transactions failed:\n%s", n, out)
	}
	tps, err := field(rate, out)
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
