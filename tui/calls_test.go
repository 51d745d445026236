package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/batch"
)

// call calls the program without a terminal, with in as its standard input.
func call(t *testing.T, in string, args ...string) (code int, out, msg string) {
	t.Helper()
	program, read := files(t)
	if _, err := program.in.WriteString(in); err != nil {
		t.Fatal(err)
	}
	if _, err := program.in.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	err := program.start(t.Context(), args)
	out, msg = read()
	if err != nil {
		msg += batch.Message(err)
	}
	return batch.ExitCode(err), out, msg
}

// Where nobody can answer nothing is asked: a script on standard input is not
// a person who types a name.
func TestAScriptIsNotAPerson(t *testing.T) {
	code, _, msg := call(t, "promote pgsql2\npgsql2\n", "--batch", "-f", "-", "--socket", made(t))
	if code != batch.ExitPrecondition || !strings.Contains(msg, "-:1: promote pgsql2") || !strings.Contains(msg, "pass --confirm pgsql2") {
		t.Errorf("exit %d: %s", code, msg)
	}
}

// Data and nothing else goes to standard output, so that a script can read it.
func TestAScriptReadsOneDocument(t *testing.T) {
	code, out, msg := call(t, "", "--batch", "--socket", made(t), "--json", "promote", "pgsql2", "--confirm", "pgsql2")
	var op api.Operation
	if err := json.Unmarshal([]byte(out), &op); err != nil || code != 0 || op.State != api.OpDone {
		t.Errorf("exit %d, %v: %s%s", code, err, out, msg)
	}
	if !strings.Contains(msg, "promote pgsql2  done in") {
		t.Errorf("the steps are not told:\n%s", msg)
	}
}

// A fault in the configuration names its place, and does not keep anybody from
// the daemon who names the socket.
func TestAFaultyConfigurationIsNotInTheWay(t *testing.T) {
	socket, path := made(t), filepath.Join(t.TempDir(), "pgtandem.toml")
	if err := os.WriteFile(path, []byte("[control]\nsocket = \""+socket+"\"\nlisten = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGTANDEM_CONFIG", path)
	if code, _, msg := call(t, "", "--batch", "status"); code != batch.ExitUsage || !strings.Contains(msg, path+":3") {
		t.Errorf("exit %d: %s", code, msg)
	}
	if code, _, msg := call(t, "", "--batch", "--socket", socket, "status"); code != 0 {
		t.Errorf("exit %d: %s", code, msg)
	}
}

func TestAnInterruptedCommandIs130(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	program, _ := files(t)
	err := program.start(ctx, []string{"--batch", "--socket", made(t), "events", "--follow"})
	if code := batch.ExitCode(err); code != batch.ExitInterrupted {
		t.Errorf("exit %d: %v", code, err)
	}
}
