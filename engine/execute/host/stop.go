package host

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
)

// stopMode: pg_ctl's are smart, fast and immediate.
func stopMode(mode string) error {
	switch mode {
	case "smart", "fast", immediate:
		return nil
	}
	return fmt.Errorf("%w: there is no stop mode %q: smart, fast or immediate", execute.ErrRefused, mode)
}

const immediate = "immediate"

// Stop stops the server and waits until no process of it is left. A server
// that is stopped already is no error. In mode immediate, processes that do not
// go are killed: a stopped process takes no other signal, and one that goes on
// later would still answer whoever is connected to it. In the other modes
// nothing is killed.
func (h *Host) Stop(ctx context.Context, mode string) error {
	if err := stopMode(mode); err != nil {
		return err
	}
	seen, stopErr := h.askToStop(ctx, mode)
	if seen {
		return nil
	}
	state, _, err := h.Postmaster(ctx)
	if err != nil || state != cluster.PostmasterRunning {
		return err
	}
	if err := h.endOrphans(ctx, mode); err != nil {
		return err
	}
	if state, pid, err := h.Postmaster(ctx); err != nil || state != cluster.PostmasterRunning {
		return err
	} else if stopErr == nil {
		return fmt.Errorf("stop PostgreSQL on %s: %w: process %d still works in %s", h.node.ID, execute.ErrRetry, pid, h.node.DataDirectory)
	}
	return stopErr
}

// askToStop also says whether it has seen the postmaster end, which ends last.
func (h *Host) askToStop(ctx context.Context, mode string) (seen bool, err error) {
	switch service := len(h.node.StopCommand) > 0; {
	case service && mode == immediate:
		// No service can stop a process that takes no signal.
		if err := h.endNow(ctx, "frozen"); err != nil {
			return false, err
		}
		bounded, cancel := context.WithTimeout(ctx, half(ctx))
		defer cancel()
		if err := h.service(bounded, h.node.StopCommand, "stop PostgreSQL", mode); err == nil || ctx.Err() != nil {
			return false, err
		}
		return false, h.endNow(ctx, "any")
	case service:
		return false, h.service(ctx, h.node.StopCommand, "stop PostgreSQL", mode)
	case mode == immediate:
		return false, h.endNow(ctx, "any")
	}
	signal := map[string]string{"smart": "TERM", "fast": "INT"}[mode]
	out, err := h.must(ctx, execute.Command{Argv: script(stopScript, h.node.DataDirectory, signal, patience(ctx))}, "stop PostgreSQL")
	return strings.TrimSpace(out) == "ended", err
}

// stopScript is pg_ctl stop, which looks ten times a second whether the server
// has ended; clients are held meanwhile, so this one looks a hundred times.
// Signals: PostgreSQL docs, 19.5.
const stopScript = `
cd -P -- "$1" 2>/dev/null || exit 0
data=$(pwd -P)
IFS= read -r pid 2>/dev/null <postmaster.pid || exit 0
pid=${pid#-}
case $pid in ''|*[!0-9]*) exit 0 ;; esac
# lives: it is PostgreSQL, works here, and has not ended.
lives() {
	IFS= read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
	comm=${stat#*\(}; comm=${comm%\)*}
	case ${stat##*\) } in Z*|X*) return 1 ;; esac
	case $comm in *postgres*|*postmaster*) ;; *) return 1 ;; esac
}
lives && [ "$(readlink -- "/proc/$pid/cwd")" = "$data" ] || exit 0
kill -s "$2" "$pid" || exit 1
rounds=$((100 * $3))
while lives; do
	[ "$rounds" -gt 0 ] || { echo "process $pid does not end" >&2; exit 75; }
	rounds=$((rounds - 1)); sleep 0.01
done
echo ended
`

// half of the time there is, so that as much is left for what comes after.
func half(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return time.Until(end) / 2
	}
	return 10 * time.Second
}

// endNowScript sends the postmaster SIGQUIT, which is an immediate shutdown,
// and kills it with its children where it is stopped (state T) or they are not
// gone after 300 ms. With "frozen" it does nothing in any other case.
const endNowScript = `
cd -P -- "$1" 2>/dev/null || exit 0
data=$(pwd -P); cd /

# look PID: sets state and parent of a living process.
look() {
	IFS= read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
	comm=${stat#*\(}; comm=${comm%\)*}
	rest=${stat##*\) }; state=${rest%% *}; rest=${rest#* }; parent=${rest%% *}
	case $state in Z*|X*) return 1 ;; esac
}
children() {
	if IFS= read -r kids 2>/dev/null <"/proc/$pid/task/$pid/children" || [ -n "$kids" ]; then echo "$kids"; return; fi
	for c in /proc/[0-9]*; do
		c=${c#/proc/}
		if look "$c" && [ "$parent" = "$pid" ]; then echo "$c"; fi
	done
}
# gone ROUNDS: waits so many hundredths of a second.
gone() {
	rounds=$1
	while :; do
		left=
		for p in $pid $family; do
			if look "$p"; then left="$left $p($state)"; fi
		done
		[ -n "$left" ] || return 0
		[ "$rounds" -gt 0 ] || return 1
		rounds=$((rounds - 1)); sleep 0.01
	done
}

IFS= read -r pid 2>/dev/null <"$data/postmaster.pid" || exit 0
pid=${pid#-}
case $pid in ''|*[!0-9]*) exit 0 ;; esac
look "$pid" || exit 0
case $comm in *postgres*|*postmaster*) ;; *) exit 0 ;; esac
[ "$(readlink -- "/proc/$pid/cwd")" = "$data" ] || exit 0
frozen=$state kids=
family=$(children)
case $frozen in
[Tt]) ;;
*)	[ "$2" = any ] || exit 0
	kill -s QUIT "$pid" 2>/dev/null
	gone 30 && exit 0
	family="$family $(children)" ;;
esac
kill -s KILL "$pid" $family 2>/dev/null
gone 200 && exit 0
echo "processes$left do not end although they were killed; D means that they wait for a disk" >&2; exit 75
`

func (h *Host) endNow(ctx context.Context, which string) error {
	_, err := h.must(ctx, execute.Command{Argv: script(endNowScript, h.node.DataDirectory, which)}, "stop PostgreSQL")
	return err
}

// orphansScript ends servers whose postmaster is gone: no pg_ctl finds them.
// It does nothing while the pid file names a living postmaster. SIGQUIT is
// followed by SIGKILL.
const orphansScript = `
cd -P -- "$1" 2>/dev/null || exit 0
data=$(pwd -P); cd /
IFS= read -r pid 2>/dev/null <"$data/postmaster.pid" && [ -d "/proc/$pid" ] && [ "$(readlink -- "/proc/$pid/cwd")" = "$data" ] && exit 0
round=0 signal=$2
while [ "$round" -lt 50 ]; do
	left=
	for p in $(find /proc/[0-9]*/cwd -prune -lname '*' -printf '%h %l\n' 2>/dev/null | while IFS= read -r line; do
		[ "${line#* }" = "$data" ] && echo "${line%% *}"
	done); do
		IFS= read -r comm 2>/dev/null <"$p/comm" || continue
		case $comm in *postgres*|*postmaster*) left=y; kill -s "$signal" "${p#/proc/}" 2>/dev/null ;; esac
	done
	[ -n "$left" ] || exit 0
	round=$((round + 1)); sleep 0.1
	if [ "$2" = QUIT ] && [ "$round" -ge 3 ]; then signal=KILL; fi
done
`

func (h *Host) endOrphans(ctx context.Context, mode string) error {
	signal := "TERM"
	if mode == immediate {
		signal = "QUIT"
	}
	_, err := h.must(ctx, execute.Command{Argv: script(orphansScript, h.node.DataDirectory, signal)}, "end what outlived the postmaster")
	return err
}
