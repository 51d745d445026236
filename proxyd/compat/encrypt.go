package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgtandem/pgtandem/engine/lab/selfsigned"
)

// encryptServers has the servers speak TLS, and proxyd with them by nothing
// else. The tests themselves reach both without.
func (b *bench) encryptServers(ctx context.Context) error {
	dir, err := b.give("tls")
	if err != nil {
		return err
	}
	cert, key, err := selfsigned.New("localhost")
	if err != nil {
		return err
	}
	certFile, keyFile := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	for path, text := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		if b.account != nil {
			if err := os.Chown(path, int(b.account.Uid), int(b.account.Gid)); err != nil {
				return fmt.Errorf("give %s to the servers' account: %w", path, err)
			}
		}
	}
	err = b.on(ctx, "postgres", fmt.Sprintf("ALTER SYSTEM SET ssl_cert_file = '%s'", certFile), fmt.Sprintf("ALTER SYSTEM SET ssl_key_file = '%s'", keyFile),
		"ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
	if err != nil {
		return err
	}
	config, err := os.OpenFile(b.lab.Config(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open the lab's configuration: %w", err)
	}
	_, err = config.WriteString("\n[proxy.server_tls]\nmode = \"require\"\n")
	if err = errors.Join(err, config.Close()); err != nil {
		return fmt.Errorf("write the lab's configuration: %w", err)
	}
	if err := syscall.Kill(b.lab.Status().ProxydPID, syscall.SIGHUP); err != nil {
		return fmt.Errorf("have proxyd read it: %w", err)
	}
	return b.encrypted(ctx)
}

// encrypted waits until a server says that its client, the proxy, came by TLS.
func (b *bench) encrypted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		var by bool
		conn, err := pgx.Connect(ctx, b.proxy.dsn("postgres"))
		if err == nil {
			err = conn.QueryRow(ctx, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&by)
			_ = conn.Close(ctx) // another is made
		}
		if by {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the servers see no TLS: %w", errors.Join(ctx.Err(), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
