package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// keys makes one key for proxyd and one host key for each node, and the two
// files by which each side knows the other.
func (l *Lab) keys(ctx context.Context) error {
	if err := l.key(ctx, "ssh/id_ed25519", "proxyd of the lab"); err != nil {
		return err
	}
	pub, err := os.ReadFile(l.path("ssh", "id_ed25519.pub"))
	if err != nil {
		return fmt.Errorf("read the public key: %w", err)
	}
	if err := l.write("ssh/authorized_keys", append([]byte("restrict "), pub...), 0o600); err != nil {
		return err
	}
	var known strings.Builder
	for _, n := range l.state.Nodes {
		if err := l.key(ctx, n.Name+"/host_key", n.Name); err != nil {
			return err
		}
		b, err := os.ReadFile(l.path(n.Name, "host_key.pub"))
		if err != nil {
			return fmt.Errorf("read the host key of %s: %w", n.Name, err)
		}
		f := strings.Fields(string(b))
		fmt.Fprintf(&known, "[%s]:%d %s %s\n", n.host(), n.SSHPort, f[0], f[1])
	}
	return l.write("ssh/known_hosts", []byte(known.String()), 0o600)
}

func (l *Lab) key(ctx context.Context, name, comment string) error {
	_, err := os.Stat(l.path(name))
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for %s: %w", name, err)
	}
	_, err = l.run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", l.path(name))
	return err
}

// startSSHD starts a node's sshd unless it runs.
func (l *Lab) startSSHD(ctx context.Context, n nodeState) error {
	if _, up := l.sshdPID(n); up {
		return nil
	}
	// StrictModes would refuse a lab below /tmp, which everybody may write to;
	// the files themselves are in directories of mode 0700.
	conf := fmt.Sprintf(`# The sshd of %s in a lab: one account, one key, one address.
Port %d
ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile %s
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers %s
StrictModes no
MaxSessions 64
MaxStartups 100
PrintMotd no
X11Forwarding no
AllowTcpForwarding no
`, n.Name, n.SSHPort, n.listen(), l.path(n.Name, "host_key"), l.path("ssh", "authorized_keys"), l.path(n.Name, "sshd.pid"), l.owner.name)
	if err := l.write(n.Name+"/sshd_config", []byte(conf), 0o600); err != nil {
		return err
	}
	c, err := l.daemonOn(n, n.Name+"/sshd.log", l.state.SSHD, "-D", "-e", "-f", l.path(n.Name, "sshd_config"))
	if err != nil {
		return err
	}
	died := make(chan error, 1)
	go func() { died <- c.Wait() }() // ends with the sshd, or with us
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := listening(bounded, n.listen(), n.SSHPort, died); err != nil {
		return fmt.Errorf("%w; its log is %s", err, l.path(n.Name, "sshd.log"))
	}
	return nil
}

func (l *Lab) sshdPID(n nodeState) (int, bool) {
	return pid(l.path(n.Name, "sshd.pid"), l.path(n.Name, "sshd_config"))
}
