package ssh

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// HostKeyError says that the machine that answered is not proved to be the one
// that was asked for. It is an execute.ErrRefused.
type HostKeyError struct {
	Addr        string
	Fingerprint string // SHA256 of the key that was shown
	Algorithm   string
	KnownHosts  string
	Line        int // where another key is on record; 0 when none is
}

func (e *HostKeyError) Error() string {
	host, port, err := net.SplitHostPort(e.Addr)
	if err != nil {
		host, port = e.Addr, "22"
	}
	remedy := fmt.Sprintf("compare it with the output of `ssh-keygen -lf` on the machine itself, then `ssh-keyscan -p %s %s >> %s`", port, host, e.KnownHosts)
	if e.Line > 0 {
		return fmt.Sprintf("refused: %s shows the %s host key %s, and %s:%d has another: either the machine was set up anew or somebody stands between; if you know why, remove that line and %s",
			e.Addr, e.Algorithm, e.Fingerprint, e.KnownHosts, e.Line, remedy)
	}
	return fmt.Sprintf("refused: %s shows the %s host key %s, which is not in %s: %s", e.Addr, e.Algorithm, e.Fingerprint, e.KnownHosts, remedy)
}

// Unwrap types it for the caller: only a person can settle it.
func (e *HostKeyError) Unwrap() error { return execute.ErrRefused }

// trust is what known_hosts says of one address.
type trust struct {
	check      ssh.HostKeyCallback
	algorithms []string // those of the keys on record; nil when there is none
}

func readKnownHosts(path, addr string) (trust, error) {
	callback, err := knownhosts.New(path)
	if errors.Is(err, fs.ErrNotExist) {
		return trust{}, fmt.Errorf("ssh %s: %w: known_hosts %s does not exist: make it with `ssh-keyscan` and compare the fingerprints", addr, execute.ErrRefused, path)
	}
	if err != nil {
		return trust{}, fmt.Errorf("ssh %s: %w: read known_hosts %s: %w", addr, execute.ErrRefused, path, err)
	}
	t := trust{check: func(hostname string, remote net.Addr, key ssh.PublicKey) error {
		return explainHostKey(callback(hostname, remote, key), addr, path, key)
	}}
	t.algorithms = recorded(callback, addr)
	return t, nil
}

func explainHostKey(err error, addr, path string, key ssh.PublicKey) error {
	if err == nil {
		return nil
	}
	e := &HostKeyError{Addr: addr, Fingerprint: ssh.FingerprintSHA256(key), Algorithm: key.Type(), KnownHosts: path}
	var mismatch *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &mismatch):
		if len(mismatch.Want) > 0 {
			e.Line = mismatch.Want[0].Line
		}
	case errors.As(err, &revoked):
		e.Line = revoked.Revoked.Line
	default:
		return fmt.Errorf("%w: check the host key %s: %w", execute.ErrRefused, e.Fingerprint, err)
	}
	return e
}

// probe is a key that nobody has: asking for it makes known_hosts list what it
// holds for an address.
type probe struct{}

func (probe) Type() string                        { return "probe" }
func (probe) Marshal() []byte                     { return []byte("probe") }
func (probe) Verify([]byte, *ssh.Signature) error { return errors.New("a probe verifies nothing") }

// recorded lists the algorithms of the keys on record for addr. Offering only
// these keeps a server with several host keys from showing one that is not on
// record, which would look like an attack.
func recorded(callback ssh.HostKeyCallback, addr string) []string {
	var mismatch *knownhosts.KeyError
	if err := callback(addr, &net.TCPAddr{IP: net.IPv4zero}, probe{}); !errors.As(err, &mismatch) {
		return nil
	}
	var out []string
	for _, k := range mismatch.Want {
		switch t := k.Key.Type(); t {
		case ssh.KeyAlgoRSA: // one key, three signatures; SHA-1 is not among those we take
			out = append(out, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512)
		default:
			out = append(out, t)
		}
	}
	return out
}

// readKey reads a private key that nobody may read but its owner and, so that
// root can own it, its group: the rule of every secret of ours.
func readKey(path string) (ssh.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: ssh key: %w", execute.ErrRefused, err)
	}
	if mode := info.Mode().Perm(); mode&^0o640 != 0 {
		return nil, fmt.Errorf("%w: ssh key %s has mode %04o and may be read by others: chmod 600 %s (at most 0640)", execute.ErrRefused, path, mode, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := checkOwner(path, int(st.Uid), os.Geteuid()); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: ssh key: %w", execute.ErrRefused, err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("%w: ssh key %s has a passphrase, and nobody is there to type it: use a key without one", execute.ErrRefused, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: ssh key %s: %w", execute.ErrRefused, path, err)
	}
	return signer, nil
}

// checkOwner holds a key to PostgreSQL's rule for its own (docs, 19.9.1): whoever
// else owns the file can give us another key, or has this one. Root looks after
// everybody's.
func checkOwner(path string, owner, us int) error {
	if owner == us || owner == 0 || us == 0 {
		return nil
	}
	return fmt.Errorf("%w: ssh key %s belongs to account %d, and neither to account %d, which we are, nor to root: chown it", execute.ErrRefused, path, owner, us)
}

// isAuthentication tells a refused login from a broken handshake; x/crypto/ssh
// has no type for the first on the client's side.
func isAuthentication(err error) bool {
	return strings.Contains(err.Error(), "unable to authenticate")
}
