package lab_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/labtest"
)

// answersWithin says whether a query is answered before a limit.
func answersWithin(t *testing.T, c *pgx.Conn, limit time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var one int
	return c.QueryRow(ctx, "SELECT 1").Scan(&one) == nil
}

// asked runs a statement on a node's own socket, which no cut is in the way of.
func asked(t *testing.T, l *labtest.Lab, node int, statement string) string {
	t.Helper()
	n := l.Status().Nodes[node]
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := l.Run(ctx, n.Name, filepath.Join(n.BinDirectory, "psql"), "-XAtq", "-h", filepath.Join(filepath.Dir(n.DataDirectory), "socket"),
		"-p", strconv.Itoa(n.Port), "-d", "postgres", "-c", statement)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func eventually(t *testing.T, what string, seen func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !seen(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not seen", what)
		}
	}
}

// A path that is cut carries nothing, in that direction and between those two
// sides alone; a path that is mended carries again, on the connections that
// were open before.
func TestPathsAreCutAndMended(t *testing.T) {
	networks := []lab.Network{lab.RelayedNetwork}
	if os.Geteuid() == 0 {
		networks = append(networks, lab.NamespaceNetwork)
	}
	for _, network := range networks {
		t.Run(string(network), func(t *testing.T) {
			l := labtest.Up(t, lab.Options{WithoutDaemon: true, Network: network})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			behind := func() bool {
				asked(t, l, 0, "SET synchronous_commit = local; CREATE TABLE IF NOT EXISTS t (); INSERT INTO t DEFAULT VALUES")
				lsn := asked(t, l, 0, "SELECT pg_current_wal_flush_lsn()")
				for range 25 {
					if asked(t, l, 1, "SELECT pg_last_wal_receive_lsn() >= '"+lsn+"'") == "t" {
						return false
					}
				}
				return true
			}
			if err := l.Cut(ctx, "pgsql1", "pgsql2"); err != nil {
				t.Fatal(err)
			}
			if !behind() {
				t.Error("the standby received through a cut from the primary to it")
			}
			primary := l.SQL("pgsql1", "postgres")
			if !answersWithin(t, primary, 10*time.Second) {
				t.Error("a cut between the nodes reached us")
			}
			if err := l.Mend(ctx, "pgsql1", "pgsql2"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the standby receives again", func() bool { return !behind() })

			for _, way := range [][2]string{{lab.DaemonSide, "pgsql1"}, {"pgsql1", lab.DaemonSide}} {
				if err := l.Cut(ctx, way[0], way[1]); err != nil {
					t.Fatal(err)
				}
				if behind() {
					t.Errorf("a cut from %s to %s is one between the nodes too", way[0], way[1])
				}
				var d net.Dialer
				bounded, end := context.WithTimeout(ctx, 300*time.Millisecond)
				c, err := d.DialContext(bounded, "tcp", net.JoinHostPort(l.Status().Nodes[0].Host, strconv.Itoa(l.Status().Nodes[0].SSHPort)))
				if err == nil {
					_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
					if n, _ := c.Read(make([]byte, 1)); n > 0 {
						t.Errorf("sshd answered through a cut from %s to %s", way[0], way[1])
					}
					_ = c.Close()
				}
				end()
				if err := l.Repair(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if !answersWithin(t, primary, 20*time.Second) {
				t.Error("a connection that was open before the cuts is not any more")
			}
		})
	}
}

// fillsAndEmpties writes to a node's disk before, while and after it is full.
func fillsAndEmpties(t *testing.T, l *lab.Lab) {
	t.Helper()
	n := l.Status().Nodes[1]
	write := func() string {
		out, _ := l.Run(t.Context(), n.Name, "dd", "if=/dev/zero", "of="+filepath.Join(filepath.Dir(n.DataDirectory), "more"), "bs=64k", "count=64", "conv=notrunc", "oflag=append")
		return string(out)
	}
	const full = "No space left on device"
	if said := write(); strings.Contains(said, full) {
		t.Errorf("on an empty disk: %s", said)
	}
	for range 2 {
		if err := l.FillDisk(n.Name); err != nil {
			t.Fatal(err)
		}
	}
	if said := write(); !strings.Contains(said, full) {
		t.Errorf("on a full disk: %s", said)
	}
	if err := l.FreeDisk(n.Name); err != nil {
		t.Fatal(err)
	}
	if said := write(); strings.Contains(said, full) {
		t.Errorf("on a disk that was freed: %s", said)
	}
}

// A network of namespaces is not left behind, whatever becomes of its lab.
func TestNamespacesEndWithTheirLab(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, err := lab.Up(t.Context(), lab.Options{Dir: t.TempDir(), Network: lab.NamespaceNetwork}); err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("namespaces without root: %v", err)
		}
		return
	}
	ours := func() string {
		out, err := exec.Command("ip", "-o", "link").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		spaces, err := exec.Command("ip", "netns", "list").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		return string(out) + string(spaces)
	}
	dir, err := os.MkdirTemp("", "pgt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGTANDEM_LABS", filepath.Join(dir, "labs"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// There is no such daemon, which is found out after all else was made.
	opt := lab.Options{Dir: filepath.Join(dir, "lab"), AnyPorts: true, Network: lab.NamespaceNetwork, SmallDisks: true, Proxyd: "/nowhere"}
	if _, err := lab.Up(ctx, opt); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a lab without a daemon: %v", err)
	}
	l, err := lab.Open(opt.Dir)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Status().Nodes[0].Host
	if left := ours(); strings.Contains(left, l.Bridge()) {
		t.Errorf("after a failed up of the lab with %s there is\n%s", address, left)
	}
	// What a lab left whose maker was killed goes when the next one is made;
	// what is somebody else's stays.
	gone, theirs := "pgt0000dead", "pgt0000beef"
	for name, alias := range map[string]string{gone: filepath.Join(dir, "gone"), theirs: dir} {
		for _, args := range [][]string{{"link", "add", name, "type", "bridge"}, {"link", "set", name, "alias", alias}, {"netns", "add", name + "-1"}} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %v: %v %s", args, err, out)
			}
		}
		defer func() {
			_ = exec.Command("ip", "netns", "del", name+"-1").Run() // one of them is gone
			_ = exec.Command("ip", "link", "del", name).Run()
		}()
	}
	opt.WithoutDaemon = true
	if l, err = lab.Up(ctx, opt); err != nil {
		t.Fatal(err)
	}
	if now := ours(); !strings.Contains(now, l.Bridge()+"-1") || !strings.Contains(now, l.Bridge()+"-2") {
		t.Errorf("a lab that is up has\n%s", now)
	} else if strings.Contains(now, gone) || strings.Count(now, theirs) < 2 {
		t.Errorf("of an orphan and somebody else's lab there is\n%s", now)
	}
	fillsAndEmpties(t, l)
	if err := l.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	if left := ours(); strings.Contains(left, l.Bridge()) {
		t.Errorf("a lab that was destroyed left\n%s", left)
	}
}
