package main

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// lab is what `pgtandem lab status --json` tells.
type lab struct {
	Proxy struct {
		Host string `json:"host"`
		Port int    `json:"port"`
	} `json:"proxy"`
	Database string `json:"database"`
	User     string `json:"user"`
	Password string `json:"password"`
	Nodes    []struct {
		Name         string `json:"name"`
		Host         string `json:"host"`
		Port         int    `json:"port"`
		BinDirectory string `json:"bin_directory"`
	} `json:"nodes"`
	ProxydPID int    `json:"proxyd_pid"`
	Config    string `json:"config"`
	Socket    string `json:"socket"`

	standbys []*target // over which reads are balanced, too

	program    string
	ownProgram string  // of the lab's proxyd, once it was replaced by another
	asked      string  // the directory we asked the lab to be in
	scratch    scratch // what we made for it; empty where the lab is the user's
}

// scratch is a directory that this program has made by os.MkdirTemp, and with
// it the only kind of directory that it removes. Its path is never taken from
// what another program says: a wrong answer must not choose what is deleted.
type scratch struct{ path string }

func newScratch(purpose string) (scratch, error) {
	path, err := os.MkdirTemp("", "pgtandem-bench-"+purpose+"-")
	if err != nil {
		return scratch{}, fmt.Errorf("make a directory for %s: %w", purpose, err)
	}
	return scratch{path}, nil
}

func (s scratch) remove() error {
	if s.path == "" {
		return nil
	}
	return os.RemoveAll(s.path)
}

func startLab(ctx context.Context, o options) (*lab, error) {
	l := &lab{program: o.program, asked: o.dir}
	if l.asked == "" {
		made, err := newScratch("lab")
		if err != nil {
			return nil, err
		}
		l.scratch, l.asked = made, filepath.Join(made.path, "lab")
		// As root the lab's servers run as postgres, who must get at it.
		if err := os.Chmod(made.path, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("open the lab's directory to its servers: %w", err), made.remove())
		}
	}
	progress("starting a lab in %s", l.asked)
	if err := l.up(ctx); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	if err := l.readStatus(ctx); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

// up starts what does not run of the lab.
func (l *lab) up(ctx context.Context) error {
	up := exec.CommandContext(ctx, l.program, "lab", "up", "--dir", l.asked)
	up.Stdout, up.Stderr = os.Stderr, os.Stderr
	if err := up.Run(); err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	return nil
}

func (l *lab) readStatus(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, l.program, "lab", "status", "--json", "--dir", l.asked).Output()
	if err != nil {
		return fmt.Errorf("ask for the lab's status: %w", err)
	}
	if err := json.Unmarshal(out, l); err != nil {
		return fmt.Errorf("read the lab's status: %w", err)
	}
	if len(l.Nodes) == 0 {
		return fmt.Errorf("the lab in %s has no node", l.asked)
	}
	return nil
}

// stop destroys a lab that was made here, and leaves another as it was; it must
// work after an interrupt.
func (l *lab) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if l.scratch.path == "" {
		if l.ownProgram == "" {
			return nil
		}
		return l.up(ctx)
	}
	progress("destroying the lab")
	destroy := exec.CommandContext(ctx, l.program, "lab", "destroy", "--dir", l.asked)
	destroy.Stdout, destroy.Stderr = os.Stderr, os.Stderr
	if err := destroy.Run(); err != nil {
		return fmt.Errorf("destroy the lab in %s: %w", l.asked, err)
	}
	return l.scratch.remove()
}

// primary finds the node that takes writes.
func (l *lab) primary(ctx context.Context) (*target, error) {
	for _, n := range l.Nodes {
		direct := &target{name: "direct", host: n.Host, port: n.Port}
		primary, err := l.isPrimary(ctx, direct)
		if err != nil {
			return nil, fmt.Errorf("ask %s whether it is primary: %w", n.Name, err)
		}
		if primary {
			return direct, nil
		}
	}
	return nil, errors.New("no node of the lab is primary")
}

func (l *lab) isPrimary(ctx context.Context, t *target) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, l.url(t))
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(ctx) }()
	var standby bool
	err = conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&standby)
	return !standby, err
}

// ownVerifier gives the role of the clients its own password once more, as a
// verifier made here, and gives that (PostgreSQL docs, 53.8 "pg_authid"). Who
// has it need not work it out of the password at each login, and can pass a
// client's proof on.
func (l *lab) ownVerifier(ctx context.Context, primary *target) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt) //nolint:errcheck // crypto/rand.Read never fails
	verifier, err := scramVerifier(l.Password, salt)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, l.url(primary))
	if err != nil {
		return "", fmt.Errorf("set the password: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "ALTER ROLE CURRENT_USER PASSWORD '"+verifier+"'"); err != nil {
		return "", fmt.Errorf("set the password: %w", err)
	}
	return verifier, nil
}

// scramIterations is PostgreSQL's.
const scramIterations = 4096

// scramVerifier is what PostgreSQL keeps of a password of plain letters (RFC
// 5802, section 3).
func scramVerifier(password string, salt []byte) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, scramIterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("make a verifier: %w", err)
	}
	mac := func(text string) []byte {
		m := hmac.New(sha256.New, salted)
		m.Write([]byte(text)) // never fails
		return m.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}
