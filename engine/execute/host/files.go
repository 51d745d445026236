package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pgtandem/pgtandem/engine/execute"
)

// ReadFile reads a file whole. One that is not there is fs.ErrNotExist.
func (h *Host) ReadFile(ctx context.Context, path string) ([]byte, error) {
	res, err := h.Run(ctx, execute.Command{Argv: []string{"env", "LC_ALL=C", "cat", "--", path}})
	if err != nil {
		return nil, fmt.Errorf("read %s on %s: %w", path, h.node.ID, err)
	}
	if res.Exit != 0 && strings.HasSuffix(told(res), ": No such file or directory") {
		return nil, fmt.Errorf("read %s on %s: %w", path, h.node.ID, fs.ErrNotExist)
	}
	if err := h.failure(res, "read "+path); err != nil {
		return nil, err
	}
	if res.Stdout == nil {
		return []byte{}, nil // nil is what ReplaceFile is given for a file that is not there
	}
	return res.Stdout, nil
}

// writeScript replaces a file in one step. What arrived is counted, because a
// connection that is lost looks like the end of input. sync with an argument
// is fsync of that file or directory alone (coreutils 8.24).
const writeScript = `
set -eu
path=$1 size=$2 mode=$3 old=$4
umask 077
path=$(readlink -f -- "$path") || { echo "the directory of $1 does not exist" >&2; exit 1; }
dir=$(dirname -- "$path")
tmp=$(mktemp -- "$dir/.pgtandem.XXXXXXXX")
trap 'rm -f -- "$tmp"' EXIT
cat >"$tmp"
[ "$(wc -c <"$tmp")" -eq "$size" ] || { echo "the content did not arrive whole" >&2; exit 1; }
if [ -e "$path" ]; then
	chmod --reference="$path" -- "$tmp"
	chown --reference="$path" -- "$tmp"
fi
[ "$mode" = keep ] || chmod -- "$mode" "$tmp"
sync -- "$tmp"
case $old in
any) ;;
none) [ ! -e "$path" ] || { echo "$path is there already" >&2; exit 77; } ;;
*) have=$(sha256sum <"$path") || { echo "$path is gone" >&2; exit 77; }
	[ "${have%% *}" = "$old" ] || { echo "$path has been changed since it was read" >&2; exit 77; } ;;
esac
mv -f -T -- "$tmp" "$path"
trap - EXIT
sync -- "$dir"
`

func (h *Host) write(ctx context.Context, path string, data []byte, mode, old string) error {
	_, err := h.must(ctx, execute.Command{
		Argv:  script(writeScript, path, strconv.Itoa(len(data)), mode, old),
		Stdin: bytes.NewReader(data),
	}, "write "+path)
	return err
}

// ReplaceFile writes beside, flushes and renames, and only if the file still
// holds old; otherwise it is execute.ErrRefused. An old of nil means that there
// must be no such file. Owner and mode are kept, and a symbolic link stays one.
func (h *Host) ReplaceFile(ctx context.Context, path string, old, data []byte) error {
	was := "none"
	if old != nil {
		sum := sha256.Sum256(old)
		was = hex.EncodeToString(sum[:])
	}
	return h.write(ctx, path, data, "keep", was)
}

// WriteFile writes beside, flushes and renames, whatever is there. The mode is
// that of the permission bits; an owner is kept.
func (h *Host) WriteFile(ctx context.Context, path string, data []byte, mode uint32) error {
	return h.write(ctx, path, data, fmt.Sprintf("%04o", mode&0o7777), "any")
}
