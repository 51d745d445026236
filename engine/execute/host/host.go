package host

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
)

// Options are what a node's machine needs to know beside the node itself.
type Options struct {
	ReplicationUser string // role that standbys connect as
	RecoveryUser    string // role that pg_rewind reads the source as
	PassFile        string // password file on the node, outside the data directory, mode 0600

	// Login is the account that via logs in as. Where it is set and differs
	// from the node's OSUser, commands run through `sudo -n -u OSUser`;
	// service commands run as they are written.
	Login string
}

// Host is one node's machine. It keeps nothing between calls.
type Host struct {
	node cluster.Node
	via  execute.Host
	opt  Options
}

var _ steps.Host = (*Host)(nil)

// New makes the machine of a node, reached through via.
func New(node cluster.Node, via execute.Host, opt Options) *Host {
	if node.ConfigDirectory == "" {
		node.ConfigDirectory = node.DataDirectory
	}
	if node.LogFile == "" {
		node.LogFile = path.Clean(node.DataDirectory) + ".log"
	}
	return &Host{node: node, via: via, opt: opt}
}

// asOwner runs a program as another account from a directory that it can
// read: PostgreSQL's programs want to know where they are.
const asOwner = `cd / && exec "$@"`

// Run runs a command as the account that owns the data directory.
func (h *Host) Run(ctx context.Context, c execute.Command) (execute.Result, error) {
	if h.opt.Login != "" && h.node.OSUser != "" && h.opt.Login != h.node.OSUser {
		c.Argv = append([]string{"sudo", "-n", "-u", h.node.OSUser, "--", "sh", "-c", asOwner, "sh"}, c.Argv...)
	}
	return h.via.Run(ctx, c)
}

// Exit codes with which the scripts of this package type what they met.
const (
	exitBusy    = 75 // EX_TEMPFAIL: another run of ours is under way
	exitRefused = 77 // EX_NOPERM: it would be unsafe
)

// must runs a command and wants exit code 0.
func (h *Host) must(ctx context.Context, c execute.Command, what string) (string, error) {
	res, err := h.Run(ctx, c)
	if err != nil {
		return "", fmt.Errorf("%s on %s: %w", what, h.node.ID, err)
	}
	if err := h.failure(res, what); err != nil {
		return "", err
	}
	return string(res.Stdout), nil
}

func (h *Host) failure(res execute.Result, what string) error {
	why := told(res)
	switch res.Exit {
	case 0:
		return nil
	case exitBusy:
		return fmt.Errorf("%s on %s: %w: %s", what, h.node.ID, execute.ErrRetry, why)
	case exitRefused:
		return fmt.Errorf("%s on %s: %w: %s", what, h.node.ID, execute.ErrRefused, why)
	}
	// The C library's words for ENOSPC, where they are said in English.
	if strings.Contains(string(res.Stderr), "No space left on device") {
		return fmt.Errorf("%s on %s: its disk is full; make room there, and it is tried again: exit code %d: %s", what, h.node.ID, res.Exit, why)
	}
	return fmt.Errorf("%s on %s: exit code %d: %s", what, h.node.ID, res.Exit, why)
}

// told is what a failed command said: the last lines of its standard error, or
// of its output where that is empty.
func told(res execute.Result) string {
	text := strings.TrimSpace(string(res.Stderr))
	if text == "" {
		text = strings.TrimSpace(string(res.Stdout))
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines[max(0, len(lines)-6):], "; ")
}

// script is a shell program that is a constant; what it works on comes as
// positional arguments.
func script(text string, args ...string) []string {
	return append([]string{"sh", "-c", text, "pgtandem"}, args...)
}

func (h *Host) bin(program string) string {
	if h.node.BinDirectory == "" {
		return program
	}
	return path.Join(h.node.BinDirectory, program)
}

func (h *Host) data(name string) string { return path.Join(h.node.DataDirectory, name) }

// split: Debian and others keep the configuration outside the data directory.
func (h *Host) split() bool {
	return path.Clean(h.node.ConfigDirectory) != path.Clean(h.node.DataDirectory)
}

func (h *Host) configFile() string { return path.Join(h.node.ConfigDirectory, "postgresql.conf") }

// Conninfo is the primary_conninfo with which the node follows from. It names
// the password file and never a password, because every superuser can read it.
func (h *Host) Conninfo(_ context.Context, from cluster.Node) (string, error) {
	if h.opt.ReplicationUser == "" {
		return "", fmt.Errorf("%w: no replication role is configured: set replication.user", execute.ErrRefused)
	}
	return h.conninfo(from, h.opt.ReplicationUser), nil
}

func (h *Host) conninfo(from cluster.Node, user string, more ...string) string {
	words := []string{"host", from.Host, "port", strconv.Itoa(from.Port), "user", user, "application_name", string(h.node.ID)}
	if h.opt.PassFile != "" {
		words = append(words, "passfile", h.opt.PassFile)
	}
	words = append(words, more...)
	var b strings.Builder
	for i := 0; i < len(words); i += 2 {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(words[i] + "=" + connQuote(words[i+1]))
	}
	return b.String()
}

// connQuote writes a value of a connection string (PostgreSQL docs,
// 34.1.1.1).
func connQuote(v string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/:*@%+,", r)
	}
	if v != "" && strings.IndexFunc(v, func(r rune) bool { return !plain(r) }) < 0 {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// confQuote writes a value as postgresql.conf reads it (PostgreSQL docs,
// 20.1.2).
func confQuote(v string) string {
	return "'" + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(v) + "'"
}
