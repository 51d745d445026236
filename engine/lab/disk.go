package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// diskSize is the size of a node's own file system: enough for a copy of a
// small database beside another, which a re-clone needs. Memory is taken only
// for what is written.
const diskSize = "2g"

// ErrNoDisk: the nodes have no file systems of their own.
var ErrNoDisk = errors.New("the lab was made without small disks")

// mountDisk gives a node a file system in memory for its directory, unless it
// has one. It stays until the lab is destroyed, because its data do.
func (l *Lab) mountDisk(n nodeState) error {
	if !l.state.SmallDisks {
		return nil
	}
	mounted, err := l.mounted(n)
	if err != nil || mounted {
		return err
	}
	if l.state.Ready {
		return fmt.Errorf("the disk of %s, which was in memory, is gone: remove what is left with pgtandem lab destroy --dir %s", n.Name, l.Dir)
	}
	options := fmt.Sprintf("size=%s,mode=0700,uid=%d,gid=%d", diskSize, l.owner.uid, l.owner.gid)
	if err := syscall.Mount("pgtandem-lab", l.path(n.Name), "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount the disk of %s: %w", n.Name, err)
	}
	return nil
}

func (l *Lab) mounted(n nodeState) (bool, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("look for the disk of %s: %w", n.Name, err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 4 && f[4] == l.path(n.Name) {
			return true, nil
		}
	}
	return false, nil
}

func (l *Lab) unmountDisk(n nodeState) error {
	if !l.state.SmallDisks {
		return nil
	}
	mounted, err := l.mounted(n)
	if err != nil || !mounted {
		return err
	}
	if err := syscall.Unmount(l.path(n.Name), 0); err != nil {
		return fmt.Errorf("unmount the disk of %s: %w", n.Name, err)
	}
	return nil
}

// HasDisks says whether FillDisk can be used.
func (l *Lab) HasDisks() bool { return l.state.SmallDisks }

// FillDisk leaves no room on a node's file system: it is made as small as what
// is on it. What PostgreSQL has reserved before, such as WAL segments that it
// uses again, it can still write to, as on any full disk.
func (l *Lab) FillDisk(node string) error { return l.resize(node, "full") }

// FreeDisk gives the room back.
func (l *Lab) FreeDisk(node string) error { return l.resize(node, diskSize) }

func (l *Lab) resize(node, size string) error {
	n, err := l.node(node)
	if err != nil {
		return err
	}
	if !l.state.SmallDisks {
		return ErrNoDisk
	}
	if size == "full" {
		var s syscall.Statfs_t
		if err := syscall.Statfs(l.path(n.Name), &s); err != nil {
			return fmt.Errorf("look at the disk of %s: %w", node, err)
		}
		size = fmt.Sprint((s.Blocks - s.Bfree) * uint64(s.Bsize))
	}
	if err := syscall.Mount("", l.path(n.Name), "", syscall.MS_REMOUNT|syscall.MS_NOSUID|syscall.MS_NODEV, "size="+size); err != nil {
		return fmt.Errorf("resize the disk of %s: %w", node, err)
	}
	return nil
}
