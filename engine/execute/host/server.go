package host

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
)

// postmasterScript believes a process only if it is alive, is PostgreSQL's and
// works in the data directory, since process ids are used again. Where the
// pid file names none such, it looks for servers that outlived their
// postmaster: one in the middle of a commit can still acknowledge it.
const postmasterScript = `
data=$1
if ! cd -P -- "$data" 2>/dev/null; then
	why=$(LC_ALL=C ls -d -- "$data/." 2>&1 >/dev/null)
	case $why in
	*'No such file or directory'*|*'Not a directory'*) echo absent 0; exit 0 ;;
	esac
	echo "cannot enter $data: $why" >&2; exit 1
fi
if [ ! -e PG_VERSION ]; then echo absent 0; exit 0; fi
data=$(pwd -P); cd /

# owns PID: a living process of PostgreSQL that works in the data directory.
owns() {
	IFS= read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
	comm=${stat#*\(}; comm=${comm%\)*}; state=${stat##*\) }
	case $state in Z*|X*) return 1 ;; esac
	case $comm in *postgres*|*postmaster*) ;; *) return 1 ;; esac
	cwd=$(readlink -- "/proc/$1/cwd" 2>/dev/null)
	[ "$cwd" = "$data" ] || { [ -z "$cwd" ] && [ -O "/proc/$1" ]; }
}

pid=
if [ -e "$data/postmaster.pid" ]; then
	IFS= read -r pid <"$data/postmaster.pid"
	pid=${pid#-}
	case $pid in *[!0-9]*) pid= ;; esac
	if [ -n "$pid" ] && owns "$pid"; then echo running "$pid"; exit 0; fi
fi
found=$(find /proc/[0-9]*/cwd -prune -lname '*' -printf '%h %l\n' 2>/dev/null | while IFS= read -r line; do
	[ "${line#* }" = "$data" ] || continue
	p=${line%% *}; p=${p#/proc/}
	if owns "$p"; then echo "$p"; break; fi
done)
if [ -n "$found" ]; then echo running "$found"; else echo stopped 0; fi
`

// Postmaster says whether a server process owns the data directory, and its
// pid. It is one round trip. Stopped and absent are proof; where the machine
// or the directory cannot be looked at, it is an error.
func (h *Host) Postmaster(ctx context.Context) (cluster.Postmaster, int, error) {
	out, err := h.must(ctx, execute.Command{Argv: script(postmasterScript, h.node.DataDirectory)}, "look for the postmaster")
	if err != nil {
		return cluster.PostmasterUnknown, 0, err
	}
	word, num, _ := strings.Cut(strings.TrimSpace(out), " ")
	pid, err := strconv.Atoi(num)
	if err != nil {
		return cluster.PostmasterUnknown, 0, fmt.Errorf("look for the postmaster on %s: %q is no answer", h.node.ID, out)
	}
	switch state := cluster.Postmaster(word); state {
	case cluster.PostmasterRunning, cluster.PostmasterStopped, cluster.PostmasterAbsent:
		return state, pid, nil
	}
	return cluster.PostmasterUnknown, 0, fmt.Errorf("look for the postmaster on %s: %q is no answer", h.node.ID, out)
}

// patience is how long pg_ctl waits: to ctx's end, less a moment in which its
// own words can arrive.
func patience(ctx context.Context) string {
	end, ok := ctx.Deadline()
	if !ok {
		return "60"
	}
	return strconv.Itoa(max(1, int((time.Until(end) - 500*time.Millisecond).Seconds())))
}

func (h *Host) pgCtl(ctx context.Context, verb string, more ...string) []string {
	return append([]string{h.bin("pg_ctl"), verb, "-D", h.node.DataDirectory, "-w", "-t", patience(ctx)}, more...)
}

// withConfig are pg_ctl's words for a configuration that lives elsewhere.
func (h *Host) withConfig() []string {
	words := []string{"-l", h.node.LogFile}
	if h.split() {
		words = append(words, "-o", "-c config_file="+shellQuote(h.configFile()))
	}
	return words
}

// shellQuote: pg_ctl hands -o to a shell of its own.
func shellQuote(v string) string { return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'" }

// deadPidFile removes the pid file of a postmaster that died and that nobody has
// waited for, as in a container without an init: it still has its number, and
// PostgreSQL would take it for a living one.
const deadPidFile = `
deadPidFile() {
	IFS= read -r pid 2>/dev/null <"$1/postmaster.pid" || return 0
	IFS= read -r stat 2>/dev/null <"/proc/${pid#-}/stat" || return 0
	case ${stat##*\) } in Z*) rm -f -- "$1/postmaster.pid" ;; esac
}
`

// startableScript refuses a directory that a rewind or a copy is working on,
// or that one has left half done.
const startableScript = deadPidFile + `
deadPidFile "$1"
saved=$(readlink -f -- "$1").pgtandem-saved
if [ -e "$saved.lock" ] && ! flock -n "$saved.lock" true; then
	echo "a rewind or copy of $1 is under way" >&2; exit 75
fi
if [ -e "$saved" ]; then
	echo "a rewind of $1 did not end, so it must be cloned" >&2; exit 77
fi
`

// Start starts the server and waits until it accepts connections, or for as
// long as ctx allows. A server that runs already is left alone, and one whose
// rewind did not end is execute.ErrRefused.
func (h *Host) Start(ctx context.Context) error {
	state, _, err := h.Postmaster(ctx)
	if err != nil || state == cluster.PostmasterRunning {
		return err
	}
	if _, err := h.must(ctx, execute.Command{Argv: script(startableScript, h.node.DataDirectory)}, "start PostgreSQL"); err != nil {
		return err
	}
	if len(h.node.StartCommand) > 0 {
		return h.service(ctx, h.node.StartCommand, "start PostgreSQL", "")
	}
	_, err = h.must(ctx, execute.Command{Argv: h.pgCtl(ctx, "start", h.withConfig()...)}, "start PostgreSQL")
	if err != nil {
		return h.withLog(ctx, err)
	}
	return nil
}

// withLog adds what the server itself said when it did not start.
func (h *Host) withLog(ctx context.Context, failed error) error {
	res, err := h.Run(ctx, execute.Command{Argv: []string{"tail", "-n", "30", "--", h.node.LogFile}})
	if err != nil || res.Exit != 0 {
		return failed
	}
	var said []string
	for _, line := range strings.Split(string(res.Stdout), "\n") {
		for _, grade := range []string{"FATAL:", "PANIC:", "HINT:"} {
			if i := strings.Index(line, grade); i >= 0 {
				said = append(said, line[i:])
			}
		}
	}
	if len(said) == 0 {
		return failed
	}
	return fmt.Errorf("%w; %s says: %s", failed, h.node.LogFile, strings.Join(said[max(0, len(said)-4):], "; "))
}

// Reload makes the server read its configuration files.
func (h *Host) Reload(ctx context.Context) error {
	if len(h.node.ReloadCommand) > 0 {
		return h.service(ctx, h.node.ReloadCommand, "reload PostgreSQL", "")
	}
	_, err := h.must(ctx, execute.Command{Argv: []string{h.bin("pg_ctl"), "reload", "-D", h.node.DataDirectory}}, "reload PostgreSQL")
	return err
}

// Restart stops the server (fast) and starts it.
func (h *Host) Restart(ctx context.Context) error {
	if len(h.node.RestartCommand) > 0 {
		return h.service(ctx, h.node.RestartCommand, "restart PostgreSQL", "fast")
	}
	if err := h.Stop(ctx, "fast"); err != nil {
		return err
	}
	return h.Start(ctx)
}

// service runs a configured command as the login account. The word {mode} in
// it stands for the stop mode, as in pg_ctlcluster's -m.
func (h *Host) service(ctx context.Context, argv []string, what, mode string) error {
	words := make([]string, len(argv))
	for i, w := range argv {
		words[i] = strings.ReplaceAll(w, "{mode}", mode)
	}
	res, err := h.via.Run(ctx, execute.Command{Argv: words})
	if err != nil {
		return fmt.Errorf("%s on %s: %w", what, h.node.ID, err)
	}
	return h.failure(res, what)
}
