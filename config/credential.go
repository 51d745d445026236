package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// ErrPasswordSource says that a password could not be had from where the
// configuration says it is. The error that wraps it names the place and never
// holds the password.
var ErrPasswordSource = errors.New("the password cannot be had")

// maxPasswordFile bounds what is read as a password, in bytes: a path that
// points at something else is a mistake and not a long password.
const maxPasswordFile = 4096

// IsSet says whether any of the three sources is set.
func (c Credential) IsSet() bool {
	return c.Password.IsSet() || c.PasswordFile != "" || c.PasswordEnv != ""
}

// Resolve gives the password: of the file, read anew each time so that a
// rotated password needs no restart, of the environment, or as configured.
// Without any of them it gives the empty string, which is right where the
// server asks for none (peer, cert). Errors match ErrPasswordSource.
func (c Credential) Resolve() (string, error) {
	switch {
	case c.PasswordFile != "":
		return readPassword(c.PasswordFile)
	case c.PasswordEnv != "":
		v, ok := os.LookupEnv(c.PasswordEnv)
		if !ok || v == "" {
			return "", fmt.Errorf("%w: the environment variable %s is not set", ErrPasswordSource, c.PasswordEnv)
		}
		return v, nil
	}
	return c.Password.Reveal(), nil
}

// readPassword gives the file's first line. What follows a line end is refused
// rather than dropped: it would make a wrong password look like a right one.
func readPassword(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w: password_file: %w", ErrPasswordSource, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%w: password_file: %w", ErrPasswordSource, err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%w: password_file %s is not a regular file", ErrPasswordSource, path)
	}
	if err := checkPrivate(path, info); err != nil {
		return "", fmt.Errorf("%w: password_file: %w", ErrPasswordSource, err)
	}
	if info.Size() > maxPasswordFile {
		return "", fmt.Errorf("%w: password_file %s has %d bytes, at most %d are read", ErrPasswordSource, path, info.Size(), maxPasswordFile)
	}
	b := make([]byte, info.Size())
	n, err := f.Read(b)
	if err != nil && n == 0 && info.Size() > 0 {
		return "", fmt.Errorf("%w: password_file: %w", ErrPasswordSource, err)
	}
	password := strings.TrimRight(string(b[:n]), "\r\n")
	if password == "" {
		return "", fmt.Errorf("%w: password_file %s is empty", ErrPasswordSource, path)
	}
	if strings.ContainsAny(password, "\r\n\x00") {
		return "", fmt.Errorf("%w: password_file %s has more than one line", ErrPasswordSource, path)
	}
	return password, nil
}

// checkPrivate holds a file with a secret to mode 0640 or less, the rule of
// PostgreSQL for its own key files (PostgreSQL docs, 19.9.1).
func checkPrivate(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return fmt.Errorf("%s has mode %04o, which lets others at it; chmod 0600 %s (at most 0640)", path, mode, path)
	}
	return nil
}
