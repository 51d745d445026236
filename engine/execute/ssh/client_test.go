package ssh_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/pgtandem/pgtandem/engine/execute"
	"github.com/pgtandem/pgtandem/engine/execute/ssh"
)

func run(t *testing.T, c *ssh.Client, argv ...string) execute.Result {
	t.Helper()
	res, err := c.Run(t.Context(), execute.Command{Argv: argv})
	if err != nil {
		t.Fatalf("run %q: %v", argv, err)
	}
	return res
}

func TestCommandTellsOutputAndExit(t *testing.T) {
	_, c := reach(t, nil)
	res := run(t, c, "sh", "-c", "echo out; echo err >&2; exit 3")
	if string(res.Stdout) != "out\n" || string(res.Stderr) != "err\n" || res.Exit != 3 {
		t.Fatalf("stdout %q, stderr %q, exit %d", res.Stdout, res.Stderr, res.Exit)
	}
}

func TestEveryWordArrivesAsItWasGiven(t *testing.T) {
	_, c := reach(t, nil)
	words := []string{
		"", " ", "plain", "two words", "it's", `"quoted"`, "$(id)", "`id`", "$HOME", "a;b", "a&&b", "a|b", "a>b",
		"*", "?", "[a]", "{a,b}", "~", "#c", "!1", `back\slash`, "line\nfeed", "tab\there", "-n", "--", "é日本", `'"'"'`, "\\'",
	}
	res := run(t, c, append([]string{"printf", `%s\0`}, words...)...)
	if got := strings.Split(strings.TrimSuffix(string(res.Stdout), "\x00"), "\x00"); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", words) {
		t.Fatalf("sent\n%q, came\n%q", words, got)
	}
}

func TestStdinReachesTheCommand(t *testing.T) {
	_, c := reach(t, nil)
	in := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	res, err := c.Run(t.Context(), execute.Command{Argv: []string{"wc", "-c"}, Stdin: bytes.NewReader(in)})
	if err != nil || strings.TrimSpace(string(res.Stdout)) != fmt.Sprint(len(in)) {
		t.Fatalf("%q, %v", res.Stdout, err)
	}
}

func TestCommandThatReadsNoStdinEnds(t *testing.T) {
	_, c := reach(t, nil)
	in := bytes.NewReader(make([]byte, 4<<20))
	res, err := c.Run(t.Context(), execute.Command{Argv: []string{"true"}, Stdin: in})
	if err != nil || res.Exit != 0 {
		t.Fatalf("exit %d, %v", res.Exit, err)
	}
}

func TestLinesComeAsTheyAreWritten(t *testing.T) {
	_, c := reach(t, nil)
	var lines []string
	_, err := c.Run(t.Context(), execute.Command{
		Argv:  []string{"printf", `a 10%%\ra 20%%\rdone\n\nlast`},
		Lines: func(l string) { lines = append(lines, l) },
	})
	if want := []string{"a 10%", "a 20%", "done", "last"}; err != nil || fmt.Sprintf("%q", lines) != fmt.Sprintf("%q", want) {
		t.Fatalf("%q, %v", lines, err)
	}
}

func TestEndlessLineIsHandedOnInPieces(t *testing.T) {
	_, c := reach(t, nil)
	longest, total := 0, 0
	_, err := c.Run(t.Context(), execute.Command{
		Argv:  []string{"sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x"},
		Lines: func(l string) { longest, total = max(longest, len(l)), total+len(l) },
	})
	if err != nil || longest > 8<<10 || total != 100000 {
		t.Fatalf("longest %d, total %d, %v", longest, total, err)
	}
}

func TestLargeOutputIsWhole(t *testing.T) {
	_, c := reach(t, nil)
	if res := run(t, c, "head", "-c", "8000000", "/dev/zero"); len(res.Stdout) != 8000000 {
		t.Fatalf("%d bytes came", len(res.Stdout))
	}
}

func TestOutputWithoutEndIsRefused(t *testing.T) {
	_, c := reach(t, nil)
	_, err := c.Run(t.Context(), execute.Command{Argv: []string{"cat", "/dev/zero"}})
	if !errors.Is(err, execute.ErrRefused) || !strings.Contains(err.Error(), "stdout") {
		t.Fatalf("got %v", err)
	}
	if res := run(t, c, "echo", "alive"); string(res.Stdout) != "alive\n" {
		t.Fatalf("then %q", res.Stdout)
	}
}

func TestOneConnectionServesManyCommands(t *testing.T) {
	m, c := reach(t, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			res, err := c.Run(t.Context(), execute.Command{Argv: []string{"echo", fmt.Sprint(i)}})
			if err != nil || string(res.Stdout) != fmt.Sprintln(i) {
				t.Errorf("command %d: %q, %v", i, res.Stdout, err)
			}
		})
	}
	wg.Wait()
	if n := m.connections(); n != 1 {
		t.Fatalf("%d connections were made", n)
	}
}

func TestLostConnectionIsDialledAgain(t *testing.T) {
	m, c := reach(t, nil)
	run(t, c, "true")
	m.cut()
	run(t, c, "true")
	if n := m.connections(); n != 2 {
		t.Fatalf("%d connections were made", n)
	}
}

func TestConnectionLostInTheMiddleIsUnknown(t *testing.T) {
	m, c := reach(t, nil)
	_, err := c.Run(t.Context(), execute.Command{
		Argv:  []string{"sh", "-c", "echo begun; exec sleep 60"},
		Lines: func(string) { m.cut() },
	})
	if !errors.Is(err, execute.ErrUnknown) || errors.Is(err, execute.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

func TestDeadlineEndsTheWait(t *testing.T) {
	_, c := reach(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := c.Run(ctx, execute.Command{
		Argv:  []string{"sh", "-c", "echo begun; exec sleep 60"},
		Lines: func(string) { cancel() },
	})
	if !errors.Is(err, execute.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if res := run(t, c, "echo", "alive"); string(res.Stdout) != "alive\n" {
		t.Fatalf("the connection was not kept: %q", res.Stdout)
	}
}

func TestSilentMachineIsUnreachable(t *testing.T) {
	m, c := reach(t, func(cfg *ssh.Config) { cfg.Timeout = 200 * time.Millisecond })
	run(t, c, "true")
	m.setDeaf()
	_, err := c.Run(t.Context(), execute.Command{Argv: []string{"true"}})
	if !errors.Is(err, execute.ErrUnreachable) || errors.Is(err, execute.ErrUnknown) {
		t.Fatalf("got %v", err)
	}
}

func TestKeepAliveEndsAConnectionThatNobodyAnswers(t *testing.T) {
	m, c := reach(t, func(cfg *ssh.Config) { cfg.Timeout, cfg.KeepAlive = 100*time.Millisecond, 20*time.Millisecond })
	_, err := c.Run(t.Context(), execute.Command{
		Argv:  []string{"sh", "-c", "echo begun; exec sleep 60"},
		Lines: func(string) { m.setDeaf() },
	})
	if !errors.Is(err, execute.ErrUnknown) {
		t.Fatalf("got %v", err)
	}
}

func TestNobodyListensIsUnreachable(t *testing.T) {
	_, path := key(t)
	host, _ := key(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	c := ssh.New(ssh.Config{Addr: addr, User: "postgres", KeyFile: path, KnownHosts: knows(t, addr, host.PublicKey())})
	defer c.Close()
	if _, err := c.Run(t.Context(), execute.Command{Argv: []string{"true"}}); !errors.Is(err, execute.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

func TestClosedClientRunsNothing(t *testing.T) {
	_, c := reach(t, nil)
	run(t, c, "true")
	_ = c.Close()
	if _, err := c.Run(t.Context(), execute.Command{Argv: []string{"true"}}); !errors.Is(err, execute.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

// Trust: what stands in the way is refused, with its place and its remedy.
func TestTrust(t *testing.T) {
	other, otherFile := key(t)
	for _, story := range []struct {
		name   string
		change func(*testing.T, *ssh.Config)
		says   []string
	}{
		{"another host key is on record", func(t *testing.T, cfg *ssh.Config) {
			cfg.KnownHosts = knows(t, cfg.Addr, other.PublicKey())
		}, []string{"SHA256:", "known_hosts:1 has another", "ssh-keyscan"}},
		{"no host key is on record", func(t *testing.T, cfg *ssh.Config) {
			cfg.KnownHosts = knows(t, "elsewhere:22", other.PublicKey())
		}, []string{"SHA256:", "is not in", "ssh-keyscan"}},
		{"known_hosts is missing", func(_ *testing.T, cfg *ssh.Config) { cfg.KnownHosts += ".gone" },
			[]string{"does not exist", "ssh-keyscan"}},
		{"known_hosts is broken", func(t *testing.T, cfg *ssh.Config) {
			write(t, cfg.KnownHosts, "not a line of known_hosts\n")
		}, []string{"known_hosts"}},
		{"the login key is another", func(_ *testing.T, cfg *ssh.Config) { cfg.KeyFile = otherFile },
			[]string{"does not accept the key", "authorized_keys"}},
		{"the login key may be read by others", func(t *testing.T, cfg *ssh.Config) {
			if err := os.Chmod(cfg.KeyFile, 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"0644", "chmod 600"}},
		{"the login key is no key", func(t *testing.T, cfg *ssh.Config) { write(t, cfg.KeyFile, "garbage") },
			[]string{"ssh key"}},
		{"the login key is missing", func(_ *testing.T, cfg *ssh.Config) { cfg.KeyFile = filepath.Join(filepath.Dir(cfg.KeyFile), "gone") },
			[]string{"gone"}},
	} {
		t.Run(story.name, func(t *testing.T) {
			_, c := reach(t, func(cfg *ssh.Config) { story.change(t, cfg) })
			_, err := c.Run(t.Context(), execute.Command{Argv: []string{"true"}})
			if !errors.Is(err, execute.ErrRefused) {
				t.Fatalf("got %v", err)
			}
			for _, s := range story.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}
}

// A server with several host keys shows the one that is on record.
func TestTheRecordedHostKeyIsAskedFor(t *testing.T) {
	signer, path := key(t)
	m := startMachine(t, signer.PublicKey(), ecdsaKey(t))
	c := ssh.New(ssh.Config{Addr: m.addr, User: "postgres", KeyFile: path, KnownHosts: knows(t, m.addr, m.host.PublicKey())})
	defer c.Close()
	run(t, c, "true")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func ecdsaKey(t *testing.T) xssh.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := xssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
