package host

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
)

// ownFiles are the node's own words about itself, which a rewind or a clone
// would overwrite with those of the source: its configuration, where that lives
// in the data directory, and its certificate.
//
// What is kept aside is also the mark of a rewind that did not end well: such
// a directory is neither old nor new, and is started by nobody.
const ownFiles = `
own='postgresql.auto.conf server.crt server.key root.crt root.crl'
[ "$split" = yes ] || own="$own postgresql.conf postgresql.conf.sync postgresql.conf.async pg_hba.conf pg_ident.conf conf.d"

# keep FROM: copies them aside, whole or not at all. Copies that are there
# already come from a run that did not end, and are the right ones.
keep() {
	[ -d "$saved" ] && return
	rm -rf -- "$saved.part"; mkdir -m 0700 -- "$saved.part" || return
	for f in $own; do
		[ ! -e "$1/$f" ] || cp -a -- "$1/$f" "$saved.part/$f" || return
	done
	sync -f -- "$saved.part"; mv -T -- "$saved.part" "$saved"
}

# put TO: puts them back, each in one step, and removes those of the source
# that the node did not have.
put() {
	for f in $own; do
		rm -rf -- "$1/$f.pgtandem"
		if [ -d "$saved/$f" ]; then
			cp -a -- "$saved/$f" "$1/$f.pgtandem" && rm -rf -- "$1/$f" && mv -T -- "$1/$f.pgtandem" "$1/$f" || return
		elif [ -e "$saved/$f" ]; then
			cp -a -- "$saved/$f" "$1/$f.pgtandem" && mv -f -T -- "$1/$f.pgtandem" "$1/$f" || return
		else
			rm -rf -- "$1/$f" || return
		fi
	done
	sync -f -- "$1"
}

# alone: one run at a time. What a lost connection left behind may go on.
alone() {
	exec 9>"$saved.lock" && flock -n 9 && return
	echo "another rewind or copy of $data is under way" >&2; exit 75
}
`

// servers lists the processes of PostgreSQL that work in a directory, whatever
// it is called by now: a process stays in the one in which it was started.
const servers = `
servers() {
	find /proc/[0-9]*/cwd -prune -lname '*' -printf '%h %l\n' 2>/dev/null | while IFS= read -r line; do
		[ "${line#* }" = "$1" ] || continue
		IFS= read -r comm 2>/dev/null <"${line%% *}/comm" || continue
		case $comm in *postgres*|*postmaster*) p=${line%% *}; echo "${p#/proc/}" ;; esac
	done
}
`

// rewindScript goes on when the connection is lost: a directory that is half
// rewound can only be cloned. One that is whole is a standby's at once: its host
// may start it, and it must not come up as a second primary.
const rewindScript = `
data=$(readlink -f -- "$1") split=$2 rewind=$3 source=$4
saved=$data.pgtandem-saved
trap '' HUP PIPE
` + ownFiles + deadPidFile + servers + `
alone
deadPidFile "$data"
if [ -d "$saved" ]; then
	echo "an earlier rewind of $data did not end, so it must be cloned" >&2; exit 77
fi
keep "$data" || exit 1
LC_ALL=C "$rewind" --target-pgdata="$data" --source-server="$source" --progress
rc=$?
put "$data" || { echo "the node's own configuration could not be put back; it is in $saved" >&2; exit 1; }
if [ "$rc" -eq 0 ] && [ -n "$(servers "$data")" ]; then
	echo "somebody has started a server in $data meanwhile, so what is there may be a mixture" >&2; exit 1
fi
if [ "$rc" -eq 0 ]; then
	: >"$data/standby.signal" && sync -- "$data/standby.signal" "$data" || exit 1
	rm -rf -- "$saved"
fi
exit $rc
`

// untouchedScript forgets a rewind that failed before it changed anything.
const untouchedScript = `
data=$(readlink -f -- "$1") && rm -rf -- "$data.pgtandem-saved"
`

// recoverScript ends the recovery of a server that crashed. pg_rewind does so
// itself, but before PostgreSQL 15 cannot be told where the configuration is.
const recoverScript = deadPidFile + `
deadPidFile "$2"
cd -- "$2" && exec "$1" --single -F -D "$2" -c config_file="$3" template1 </dev/null >&2
`

// Rewind takes the stopped node back to where its history left from's, with
// its own configuration files as they were, whether it succeeds or not. When
// it fails after it has begun to write, the directory can only be cloned, and
// Start and ControlData refuse it until then.
func (h *Host) Rewind(ctx context.Context, from cluster.Node, progress func(string)) error {
	if h.opt.RecoveryUser == "" {
		return fmt.Errorf("%w: no recovery role is configured: set recovery.user", execute.ErrRefused)
	}
	if err := h.mustBeStopped(ctx, "rewound"); err != nil {
		return err
	}
	if err := h.recoverCrashed(ctx); err != nil {
		return err
	}
	began := false
	res, err := h.Run(ctx, execute.Command{
		Argv: script(rewindScript, h.node.DataDirectory, h.splitWord(), h.bin("pg_rewind"), h.source(from, h.opt.RecoveryUser, "dbname", "postgres")),
		Lines: func(line string) {
			began = began || strings.Contains(line, "need to copy")
			tell(progress, line)
		},
	})
	if err != nil {
		return fmt.Errorf("pg_rewind on %s: %w", h.node.ID, err)
	}
	failed := h.failure(res, "pg_rewind")
	switch {
	case failed == nil || res.Exit == exitBusy || res.Exit == exitRefused:
		return failed
	case began:
		return fmt.Errorf("%w; it had begun to write, so the directory must be cloned", failed)
	}
	if _, err := h.must(ctx, execute.Command{Argv: script(untouchedScript, h.node.DataDirectory)}, "forget the rewind"); err != nil {
		return fmt.Errorf("%w; then %w", failed, err)
	}
	return failed
}

// source is a connection string for programs that read from a peer; a peer
// that vanishes is noticed within half a minute.
func (h *Host) source(from cluster.Node, user string, more ...string) string {
	// Not under the node's own name, which is in synchronous_standby_names: a
	// commit would wait for a copy that confirms nothing.
	return h.conninfo(from, user, append(more, "application_name", "pgtandem copy to "+string(h.node.ID), "connect_timeout", "10",
		"keepalives_idle", "10", "keepalives_interval", "5", "keepalives_count", "4")...)
}

// tell hands a program's line on without its name.
func tell(progress func(string), line string) {
	line = strings.TrimSpace(line)
	for _, program := range []string{"pg_rewind: ", "pg_basebackup: "} {
		line = strings.TrimPrefix(line, program)
	}
	if line != "" && progress != nil {
		progress(line)
	}
}

func (h *Host) splitWord() string {
	if h.split() {
		return "yes"
	}
	return "no"
}

func (h *Host) recoverCrashed(ctx context.Context) error {
	if !h.split() {
		return nil
	}
	cd, err := h.ControlData(ctx)
	if err != nil || cd.State == "shut down" || cd.State == "shut down in recovery" {
		return err
	}
	_, err = h.must(ctx, execute.Command{Argv: script(recoverScript, h.bin("postgres"), h.node.DataDirectory, h.configFile())}, "recover the crashed server")
	return err
}

// cloneScript touches the data directory only when the copy is whole. It is
// made a standby's before it gets its place: started too early, it must not
// come up as a second primary. A server that somebody has started in the old
// directory meanwhile goes with it.
const cloneScript = `
given=$1 split=$2 basebackup=$3 isready=$4 source=$5
data=$(readlink -f -- "$given") || { echo "the directory of $given does not exist" >&2; exit 1; }
saved=$data.pgtandem-saved new=$data.pgtandem-new old=$data.pgtandem-old
` + ownFiles + servers + `
# whole: a directory that has held a server, which has words of its own.
whole() { [ -e "$1/PG_VERSION" ] || [ -e "$1/postgresql.conf" ]; }

alone
# pg_basebackup has a child that streams WAL; where the two were cut off from the
# shell that had the lock, it waits for WAL that nobody wants.
for f in $(grep -lzxF -- "$new" /proc/[0-9]*/cmdline 2>/dev/null); do
	p=${f#/proc/}; p=${p%/cmdline}
	IFS= read -r comm 2>/dev/null <"/proc/$p/comm" && [ "$comm" = pg_basebackup ] && kill -s KILL "$p" 2>/dev/null
done
if mountpoint -q -- "$data" 2>/dev/null; then
	echo "$data is a mount point and cannot be renamed: let the data directory be a directory in it" >&2; exit 77
fi
if [ -d "$data" ] && ! whole "$data" && [ -n "$(ls -A -- "$data")" ]; then
	echo "$data is not empty and holds no server: it is not overwritten" >&2; exit 77
fi
LC_ALL=C "$isready" -q -t 10 -d "$source" || { echo "the source does not accept connections; nothing has been changed" >&2; exit 75; }
if [ -d "$old" ]; then
	if [ -d "$data" ]; then rm -rf -- "$old"; else mv -T -- "$old" "$data"; fi || exit 1
fi
rm -rf -- "$new" || exit 1
LC_ALL=C "$basebackup" -d "$source" -D "$new" -c fast -X stream --progress --no-password 9>&- || exit 1
if [ -d "$saved" ] || whole "$data"; then keep "$data" && put "$new" || exit 1; fi
rm -f -- "$new/recovery.signal"
: >"$new/standby.signal" && sync -- "$new/standby.signal" "$new" || exit 1
if [ -d "$data" ]; then
	chmod --reference="$data" -- "$new"; chown --reference="$data" -- "$new"
	mv -T -- "$data" "$old" || exit 1
fi
if ! mv -T -- "$new" "$data"; then
	[ ! -d "$old" ] || mv -T -- "$old" "$data"
	exit 1
fi
sync -- "$(dirname -- "$data")"
signal=QUIT round=0
while [ "$round" -lt 100 ] && left=$(servers "$old") && [ -n "$left" ]; do
	kill -s $signal $left 2>/dev/null
	[ "$round" -lt 20 ] || signal=KILL
	round=$((round + 1)); sleep 0.05
done
rm -rf -- "$old" "$saved"
`

// Clone copies from's data directory and, when the copy is whole, puts it in
// the place of the stopped node's own, whose configuration files it keeps.
// Both need room at the same time. A clone that ends early has changed nothing.
func (h *Host) Clone(ctx context.Context, from cluster.Node, progress func(string)) error {
	if h.opt.ReplicationUser == "" {
		return fmt.Errorf("%w: no replication role is configured: set replication.user", execute.ErrRefused)
	}
	if err := h.mustBeStopped(ctx, "overwritten"); err != nil {
		return err
	}
	_, err := h.must(ctx, execute.Command{
		Argv: script(cloneScript, h.node.DataDirectory, h.splitWord(), h.bin("pg_basebackup"), h.bin("pg_isready"),
			h.source(from, h.opt.ReplicationUser)),
		Lines: func(line string) { tell(progress, line) },
	}, "pg_basebackup")
	return err
}
