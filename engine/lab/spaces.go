package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// root runs a program as ourselves: what makes a network needs root.
func (l *Lab) root(ctx context.Context, stdin, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ip runs ip(8) on a line of words, none of which has a space in it.
func (l *Lab) ip(ctx context.Context, line string) error {
	return l.root(ctx, "", "ip", strings.Fields(line)...)
}

// exists says whether there is a file.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// makeSpaces makes a bridge with proxyd's address, and for each node a network
// namespace that hangs on it.
func (l *Lab) makeSpaces(ctx context.Context) error {
	br := l.Bridge()
	there, err := exists("/sys/class/net/" + br)
	if err != nil {
		return fmt.Errorf("look for the lab's network: %w", err)
	}
	if there {
		return nil
	}
	if err := l.removeOrphans(ctx); err != nil {
		return err
	}
	if err := l.ip(ctx, "link add "+br+" type bridge"); err != nil {
		return fmt.Errorf("make the lab's network: %w", err)
	}
	if err := l.root(ctx, "", "ip", "link", "set", br, "alias", l.Dir); err != nil { // a directory may have a space in its name
		return errors.Join(fmt.Errorf("name the lab's network: %w", err), l.removeSpaces(context.WithoutCancel(ctx)))
	}
	lines := []string{fmt.Sprintf("addr add %s/24 dev %s", l.daemonAddress(), br), "link set " + br + " up"}
	for _, n := range l.state.Nodes {
		ns := l.space(n)
		if n.Host != n.Listen {
			lines = append(lines, fmt.Sprintf("addr add %s/32 dev %s", n.Host, br))
		}
		lines = append(lines, "netns add "+ns, fmt.Sprintf("link add %s type veth peer name eth0 netns %s", ns, ns),
			fmt.Sprintf("link set %s master %s up", ns, br), fmt.Sprintf("-n %s addr add %s/24 dev eth0", ns, n.Listen),
			fmt.Sprintf("-n %s link set eth0 up", ns), fmt.Sprintf("-n %s link set lo up", ns))
	}
	for _, line := range lines {
		if err := l.ip(ctx, line); err != nil {
			return errors.Join(fmt.Errorf("make the lab's network: %w", err), l.removeSpaces(context.WithoutCancel(ctx)))
		}
	}
	return nil
}

// removeSpaces removes what makeSpaces makes.
func (l *Lab) removeSpaces(ctx context.Context) error {
	if err := l.removeNetwork(ctx, l.Bridge()); err != nil {
		return fmt.Errorf("remove the lab's network: %w", err)
	}
	return nil
}

// removeNetwork removes a bridge with all that hangs on it. A link goes with
// its other end; the rules that drop packets go with their namespace.
func (l *Lab) removeNetwork(ctx context.Context, bridge string) error {
	var errs []error
	for _, of := range [][2]string{{"/sys/class/net/" + bridge + "-*", "link del "}, {"/run/netns/" + bridge + "-*", "netns del "}, {"/sys/class/net/" + bridge, "link del "}} {
		found, err := filepath.Glob(of[0])
		errs = append(errs, err)
		for _, path := range found {
			errs = append(errs, l.ip(ctx, of[1]+filepath.Base(path)))
		}
	}
	return errors.Join(errs...)
}

// removeOrphans removes the networks of labs whose directory is gone: whoever
// made them was killed before it could, and somebody has tidied up behind it.
// Each bridge says whose it is.
func (l *Lab) removeOrphans(ctx context.Context) error {
	found, err := filepath.Glob("/sys/class/net/" + bridgePrefix + "????????")
	if err != nil {
		return fmt.Errorf("look for networks of other labs: %w", err)
	}
	for _, path := range found {
		b, err := os.ReadFile(filepath.Join(path, "ifalias"))
		dir := strings.TrimSpace(string(b))
		if err != nil || !filepath.IsAbs(dir) {
			continue // it has gone meanwhile, or is being made
		}
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			if err := l.removeNetwork(ctx, filepath.Base(path)); err != nil {
				return fmt.Errorf("remove the network of the lab in %s, which is gone: %w", dir, err)
			}
		}
	}
	return nil
}

// filter sets the rules of every namespace to the present cuts and loss. Each
// packet passes one rule of each kind: where it arrives at a node, or where it
// leaves one for proxyd's host.
func (l *Lab) filter(ctx context.Context) error {
	for _, n := range l.state.Nodes {
		if err := l.root(ctx, l.rules(n), "nsenter", "--net=/run/netns/"+l.space(n), "--", "nft", "-f", "-"); err != nil {
			return fmt.Errorf("set the rules of %s: %w", n.Name, err)
		}
	}
	return nil
}

// rules is the whole table of a node's namespace, replaced at once (nft(8)).
func (l *Lab) rules(n nodeState) string {
	var in, out strings.Builder
	away := l.daemonAddress()
	for _, o := range l.state.Nodes {
		if o.Host != o.Listen {
			away += ", " + o.Host
		}
	}
	away = "{ " + away + " }"
	if l.wires.cuts[[2]string{DaemonSide, n.Name}] {
		fmt.Fprintf(&in, "\t\tip saddr %s drop\n", away)
	}
	if l.wires.cuts[[2]string{n.Name, DaemonSide}] {
		fmt.Fprintf(&out, "\t\tip daddr %s drop\n", away)
	}
	for _, o := range l.state.Nodes {
		if l.wires.cuts[[2]string{o.Name, n.Name}] {
			fmt.Fprintf(&in, "\t\tip saddr %s drop\n", o.Listen)
		}
	}
	if l.wires.loss > 0 {
		fmt.Fprintf(&in, "\t\tiif != lo numgen random mod 100 < %d drop\n", l.wires.loss)
		fmt.Fprintf(&out, "\t\tip daddr %s numgen random mod 100 < %d drop\n", away, l.wires.loss)
	}
	return fmt.Sprintf(`table inet pgtandem_lab
delete table inet pgtandem_lab
table inet pgtandem_lab {
	chain arriving {
		type filter hook input priority 0; policy accept;
%s	}
	chain leaving {
		type filter hook output priority 0; policy accept;
%s	}
}
`, in.String(), out.String())
}
