package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"

	"github.com/pgtandem/pgtandem/engine/lab/selfsigned"
)

// certificate is a chain and its key, PEM.
type certificate struct{ cert, key string }

// measureTLS is select and login with and without TLS between the clients and
// the proxies, which all show the same certificate.
func measureTLS(ctx context.Context, b *bench) (err error) {
	cert, key, err := selfsigned.New("localhost")
	if err != nil {
		return err
	}
	c := &certificate{string(cert), string(key)}
	account, err := unprivileged()
	if err != nil {
		return err
	}
	dir, err := newScratch("tls")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.remove()) }()
	if err := writeFiles(dir.path, map[string]string{"cert.pem": c.cert, "key.pem": c.key}, account); err != nil {
		return err
	}
	plain, err := b.open(ctx, setup{rivals: []string{pgbouncer}, tls: c, proxyd: []setting{
		{"proxy.client_tls", "mode", `"allow"`},
		{"proxy.client_tls", "cert_file", strconv.Quote(filepath.Join(dir.path, "cert.pem"))},
		{"proxy.client_tls", "key_file", strconv.Quote(filepath.Join(dir.path, "key.pem"))},
	}})
	if err != nil {
		return err
	}
	var targets []*target
	for _, t := range plain {
		targets = append(targets, t)
		if t.pid != 0 { // the lab's servers themselves have no TLS
			secure := *t
			secure.name, secure.tls = t.name+" TLS", true
			targets = append(targets, &secure)
		}
	}
	if err := b.selects(ctx, targets); err != nil {
		return err
	}
	return b.logins(ctx, targets)
}
