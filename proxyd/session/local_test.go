package session

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// listenLocal opens a Unix socket of PostgreSQL's name, as the daemon does.
func listenLocal(t testing.TB, dir string, port int) net.Listener {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port))
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	return l
}
