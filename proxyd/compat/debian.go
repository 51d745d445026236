package main

import (
	"archive/tar"
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// debian fetches what belongs to the installed server out of Debian's archive:
// exactly its version, because a library that is loaded into the server has to
// be built with that server's headers.
type debian struct {
	major   string
	version string // of the binary package
	cache   string
}

func newDebian(ctx context.Context, bin, cache string) (*debian, error) {
	major := filepath.Base(filepath.Dir(bin))
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", "postgresql-"+major).Output()
	if err != nil {
		return nil, fmt.Errorf("find the Debian package of the server in %s: %w; its tests come from Debian's archive, so install postgresql-%s from there", bin, err, major)
	}
	d := &debian{major: major, version: string(out)}
	d.cache = filepath.Join(cache, "postgresql-"+d.version)
	return d, nil
}

// fetch puts the package of the headers and the source package into the cache.
func (d *debian) fetch(ctx context.Context) error {
	if _, err := os.Stat(d.cache); err == nil {
		return nil
	}
	progress("fetching PostgreSQL's tests, version %s, from Debian's archive", d.version)
	work := d.cache + ".part"
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("begin the download anew: %w", err)
	}
	apt, err := newApt(work)
	if err != nil {
		return err
	}
	files := filepath.Join(work, "files")
	if err := os.MkdirAll(files, 0o755); err != nil {
		return fmt.Errorf("make a directory for the download: %w", err)
	}
	updateErr := apt.get(ctx, files, "update") // one of several archives may be away
	err = errors.Join(
		apt.get(ctx, files, "download", "postgresql-server-dev-"+d.major+"="+d.version),
		apt.get(ctx, files, "source", "--download-only", "postgresql-"+d.major+"="+d.version))
	if err != nil {
		return fmt.Errorf("fetch version %s: %w; where the archive has a newer one by now, upgrade postgresql-%s",
			d.version, errors.Join(updateErr, err), d.major)
	}
	if err := os.Rename(files, d.cache); err != nil {
		return fmt.Errorf("keep the download: %w", err)
	}
	return os.RemoveAll(work)
}

// unpack lays the headers and the tests out.
func (d *debian) unpack(ctx context.Context, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", to, err)
	}
	headers, err := d.one("*.deb")
	if err != nil {
		return err
	}
	if err := must(ctx, to, "dpkg-deb", "-x", headers, to); err != nil {
		return err
	}
	source, err := d.one("*.orig.tar.*[a-z2]")
	if err != nil {
		return err
	}
	f, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("open the source: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := untar(bufio.NewReader(f), to, "src/test/regress/", "src/test/isolation/"); err != nil {
		return fmt.Errorf("unpack %s: %w", source, err)
	}
	return nil
}

// untar lays out what an archive has below some directories, without the one
// that all of it is in. Not every machine has bzip2, so it is done here.
func untar(r *bufio.Reader, to string, below ...string) error {
	plain, err := decompressed(r)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(to) // nothing an archive names is written outside of it
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for t := tar.NewReader(plain); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if h.Typeflag != tar.TypeReg || !slices.ContainsFunc(below, func(dir string) bool { return strings.HasPrefix(name, dir) }) {
			continue
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		body, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		if err := root.WriteFile(name, body, 0o644|h.FileInfo().Mode().Perm()&0o111); err != nil {
			return err
		}
	}
}

// decompressed reads through the compressions that PostgreSQL's source has come
// in.
func decompressed(r *bufio.Reader) (io.Reader, error) {
	magic, err := r.Peek(3)
	switch {
	case err != nil:
		return nil, err
	case string(magic) == "BZh":
		return bzip2.NewReader(r), nil
	case string(magic[:2]) == "\x1f\x8b":
		return gzip.NewReader(r)
	}
	return nil, fmt.Errorf("it begins with %q, and is neither bzip2 nor gzip", magic)
}

func (d *debian) one(pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(d.cache, pattern))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s holds %d files like %s, and has to hold one: remove it and run this again", d.cache, len(found), pattern)
	}
	return found[0], nil
}

// apt is apt with lists and sources of our own, which takes no right and
// leaves the machine's configuration alone.
type apt struct{ options []string }

func newApt(dir string) (*apt, error) {
	sources := filepath.Join(dir, "sources")
	for _, d := range []string{sources, filepath.Join(dir, "lists", "partial"), filepath.Join(dir, "archives", "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("make a place for apt's lists: %w", err)
		}
	}
	found := 0
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("look for apt's sources: %w", err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read apt's sources: %w", err)
			}
			if err := os.WriteFile(filepath.Join(sources, filepath.Base(f)), []byte(withSource(f, string(b))), 0o644); err != nil {
				return nil, fmt.Errorf("copy apt's sources: %w", err)
			}
			found++
		}
	}
	if found == 0 {
		return nil, errors.New("apt has no sources in /etc/apt: this needs Debian's archive")
	}
	return &apt{[]string{
		"-qq", "-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=" + sources,
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir,
		"-o", "APT::Sandbox::User=root", // the cache need not be open to _apt
	}}, nil
}

// withSource makes every archive that gives binary packages give their source
// as well.
func withSource(name, text string) string {
	lines := strings.Split(text, "\n")
	var out []string
	for _, line := range lines {
		out = append(out, line)
		if strings.HasSuffix(name, ".sources") {
			if key, types, _ := strings.Cut(line, ":"); strings.EqualFold(key, "Types") && !strings.Contains(types, "deb-src") {
				out[len(out)-1] = line + " deb-src"
			}
		} else if rest, ok := strings.CutPrefix(line, "deb "); ok {
			out = append(out, "deb-src "+rest)
		}
	}
	return strings.Join(out, "\n")
}

func (a *apt) get(ctx context.Context, dir string, args ...string) error {
	if err := must(ctx, dir, "apt-get", append(append([]string(nil), a.options...), args...)...); err != nil {
		return fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
