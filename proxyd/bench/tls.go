package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strconv"
	"time"
)

// certificate is a chain and its key, PEM.
type certificate struct{ cert, key string }

// measureTLS is select and login with and without TLS between the clients and
// the proxies, which all show the same certificate.
func measureTLS(ctx context.Context, b *bench) (err error) {
	c, err := newCertificate()
	if err != nil {
		return err
	}
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

// newCertificate makes one that signs itself.
func newCertificate() (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	now := time.Now()
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 7), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	return &certificate{
		cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
	}, nil
}
