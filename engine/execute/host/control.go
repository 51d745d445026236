package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"unicode"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
)

const controlScript = `
if [ -e "$(readlink -f -- "$2").pgtandem-saved" ]; then
	echo "a rewind of $2 did not end, so it must be cloned" >&2; exit 77
fi
LC_ALL=C "$1" -D "$2" || exit 1
if [ -e "$2/backup_label" ]; then echo 'pgtandem backup_label: yes'; fi
`

// ControlData reads what pg_control says; the words are PostgreSQL's in
// English whatever the machine speaks. It is execute.ErrRefused after a rewind
// that did not end, since the control file then describes nothing.
func (h *Host) ControlData(ctx context.Context) (steps.ControlData, error) {
	out, err := h.must(ctx, execute.Command{Argv: script(controlScript, h.bin("pg_controldata"), h.node.DataDirectory)}, "read the control data")
	if err != nil {
		return steps.ControlData{}, err
	}
	cd, err := parseControlData(out)
	if err != nil {
		return cd, fmt.Errorf("read the control data of %s: %w", h.node.ID, err)
	}
	return cd, nil
}

// parseControlData takes the further of checkpoint and minimum recovery point
// for where the directory stands: a standby writes checkpoints rarely, and may
// have replayed past one, onto another timeline.
func parseControlData(out string) (cd steps.ControlData, err error) {
	seen := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok {
			seen[k] = strings.TrimSpace(v)
		}
	}
	var errs []error
	number := func(key string, bits int) uint64 {
		v, err := strconv.ParseUint(seen[key], 10, bits)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is %q", key, seen[key]))
		}
		return v
	}
	position := func(key string) cluster.LSN {
		v, err := cluster.ParseLSN(seen[key])
		if err != nil || seen[key] == "" {
			errs = append(errs, fmt.Errorf("%q is %q", key, seen[key]))
		}
		return v
	}
	cd = steps.ControlData{
		SystemIdentifier: number("Database system identifier", 64),
		State:            seen["Database cluster state"],
		Timeline:         cluster.Timeline(max(number("Latest checkpoint's TimeLineID", 32), number("Min recovery ending loc's timeline", 32))),
		CheckpointLSN:    max(position("Latest checkpoint location"), position("Minimum recovery ending location")),
		BackupLabel:      seen["pgtandem backup_label"] == "yes",
	}
	if cd.State == "" {
		errs = append(errs, errors.New("the cluster state is missing"))
	}
	return cd, errors.Join(errs...)
}

// History reads the history file of a timeline; the first has none and gives
// the empty string.
func (h *Host) History(ctx context.Context, tli cluster.Timeline) (string, error) {
	if tli <= 1 {
		return "", nil
	}
	b, err := h.ReadFile(ctx, h.data(fmt.Sprintf("pg_wal/%08X.history", uint32(tli))))
	return string(b), err
}

// IsStandby says whether the node would start as a standby.
func (h *Host) IsStandby(ctx context.Context) (bool, error) {
	_, err := h.ReadFile(ctx, h.data("standby.signal"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// signalScript makes the directory that of a standby and nothing else.
const signalScript = `
set -eu
cd -- "$1"
rm -f recovery.signal recovery.conf recovery.done promote
if [ ! -e standby.signal ]; then (umask 077; : >standby.signal); fi
chmod --reference=PG_VERSION standby.signal
sync standby.signal .
`

// ConfigureStandby makes a stopped node a standby of from, with a replication
// slot there unless slot is empty. The settings go
// before the signal file: a node that has the signal follows the right primary.
func (h *Host) ConfigureStandby(ctx context.Context, from cluster.Node, slot string) error {
	if err := h.mustBeStopped(ctx, "configured as a standby"); err != nil {
		return err
	}
	conninfo, err := h.Conninfo(ctx, from)
	if err != nil {
		return err
	}
	auto := h.data("postgresql.auto.conf")
	old, err := h.ReadFile(ctx, auto)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	port, err := h.ownPort(ctx)
	if err != nil {
		return err
	}
	if next := standbySettings(string(old), conninfo, slot, port); next != string(old) {
		if err := h.ReplaceFile(ctx, auto, old, []byte(next)); err != nil {
			return err
		}
	}
	_, err = h.must(ctx, execute.Command{Argv: script(signalScript, h.node.DataDirectory)}, "write standby.signal")
	return err
}

// ownPort is the port to set where postgresql.conf is a copy of the primary's,
// with the primary's port; 0 where the file says what is configured.
func (h *Host) ownPort(ctx context.Context) (int, error) {
	text, err := h.ReadFile(ctx, h.configFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // another file is named on the command line
	}
	if err != nil {
		return 0, err
	}
	says := "5432"
	for _, line := range strings.Split(string(text), "\n") {
		if settingOf(line) == "port" {
			value, _, _ := strings.Cut(strings.TrimLeft(strings.TrimSpace(line)[len("port"):], "= \t"), "#")
			says = strings.Trim(strings.TrimSpace(value), "'")
		}
	}
	if h.node.Port == 0 || says == strconv.Itoa(h.node.Port) {
		return 0, nil
	}
	return h.node.Port, nil
}

const syncNames = "synchronous_standby_names"

// settingOf is the name of the setting on a line of postgresql.conf, in lower
// case; empty where there is none.
func settingOf(line string) string {
	line = strings.TrimSpace(line)
	end := strings.IndexFunc(line, func(r rune) bool { return r == '=' || unicode.IsSpace(r) })
	if end <= 0 || line[0] == '#' {
		return ""
	}
	return strings.ToLower(line[:end])
}

// standbySettings is the text of postgresql.auto.conf for a standby: one line
// each of what a standby needs, no recovery target, all else as it was. A
// standby waits for nobody, so that it does not hang when it is promoted; the
// empty entry wins over whatever postgresql.conf says. A port of 0 is not set.
func standbySettings(text, conninfo, slot string, port int) string {
	var b strings.Builder
	for _, line := range strings.SplitAfter(text, "\n") {
		key := settingOf(line)
		if key == "primary_conninfo" || key == "primary_slot_name" || key == syncNames || key == "port" || strings.HasPrefix(key, "recovery_target") || line == "" {
			continue
		}
		b.WriteString(line)
		if !strings.HasSuffix(line, "\n") {
			b.WriteByte('\n')
		}
	}
	fmt.Fprintf(&b, "primary_conninfo = %s\nprimary_slot_name = %s\n%s = ''\n", confQuote(conninfo), confQuote(slot), syncNames)
	if port != 0 {
		fmt.Fprintf(&b, "port = %d\n", port)
	}
	return b.String()
}

func (h *Host) mustBeStopped(ctx context.Context, what string) error {
	state, pid, err := h.Postmaster(ctx)
	if err != nil {
		return err
	}
	if state == cluster.PostmasterRunning {
		return fmt.Errorf("%w: process %d of %s works in %s, which therefore is not %s: stop it first",
			execute.ErrRefused, pid, h.node.ID, h.node.DataDirectory, what)
	}
	return nil
}
