package daemon

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/hba"
	"github.com/pgtandem/pgtandem/proxyd/session"
)

// secured is the security of the data plane as read from its files, and what
// they held: a reload that finds the same keys may find new certificates.
type secured struct {
	session.Security
	held map[string][sha256.Size]byte // by key
}

// readSecurity reads what the configuration names. mock is what makes up the
// salts of roles that do not exist.
func readSecurity(p config.Proxy, mock []byte) (s secured, err error) {
	s.held = map[string][sha256.Size]byte{}
	s.MockSecret = mock
	c, v := p.ClientTLS, p.ServerTLS
	s.ClientTLS.Mode, s.ClientTLS.MinVersion = c.Mode, tlsVersion(c.MinVersion)
	s.ServerTLS.Mode, s.ServerTLS.MinVersion = v.Mode, tlsVersion(v.MinVersion)
	s.ServerTLS.Direct, s.ServerTLS.ChannelBinding = v.Negotiation == "direct", auth.Binding(v.ChannelBinding)
	s.ServerTLS.RequireSCRAM = v.RequireAuth != ""
	if c.Mode != session.TLSDisable {
		s.ClientTLS.Certificate, err = s.pair("proxy.client_tls", c.CertFile, c.KeyFile)
	}
	if err == nil {
		s.ClientTLS.CAs, err = s.authorities("proxy.client_tls.ca_file", c.CAFile)
	}
	if err == nil && v.CertFile != "" {
		s.ServerTLS.Certificate, err = s.pair("proxy.server_tls", v.CertFile, v.KeyFile)
	}
	if err == nil {
		s.ServerTLS.Roots, err = s.authorities("proxy.server_tls.ca_file", v.CAFile)
	}
	if err == nil {
		err = s.rules(p)
	}
	return s, err
}

// tlsVersion: the configuration knows these two.
func tlsVersion(name string) uint16 {
	if name == "TLSv1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

func (s *secured) pair(table, certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := s.read(table+".cert_file", certFile)
	if err != nil {
		return nil, err
	}
	key, err := s.read(table+".key_file", keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %s and %s: %w", table, certFile, keyFile, err)
	}
	return &pair, nil
}

func (s *secured) authorities(key, path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := s.read(key, path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: there is no certificate in %s", key, path)
	}
	return pool, nil
}

func (s *secured) read(key, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	s.held[key] = sha256.Sum256(data)
	return data, nil
}

func (s *secured) rules(p config.Proxy) (err error) {
	if p.HBAFile == "" {
		return nil
	}
	if s.Rules, err = hba.Load(p.HBAFile); err != nil {
		return fmt.Errorf("proxy.hba_file: %w", err)
	}
	s.held["proxy.hba_file"] = sha256.Sum256([]byte(s.Rules.String()))
	if p.IdentFile == "" {
		return nil
	}
	if s.Maps, err = hba.LoadMaps(p.IdentFile); err != nil {
		return fmt.Errorf("proxy.ident_file: %w", err)
	}
	s.held["proxy.ident_file"] = sha256.Sum256([]byte(s.Maps.String()))
	return nil
}

// changed names the keys whose files hold something else now.
func (s secured) changed(from secured) (keys []string) {
	for key, sum := range s.held {
		if was, known := from.held[key]; known && was != sum {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

const mockFile = "login-mock"

// mockSecret is what the salts of roles that do not exist are made from. It is
// kept, so that a restart does not tell them by a salt that changed.
func mockSecret(dir string) ([]byte, error) {
	path := filepath.Join(dir, mockFile)
	secret, err := os.ReadFile(path)
	if err == nil && len(secret) == sha256.Size {
		return secret, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the secret that hides which roles exist: %w", err)
	}
	secret = make([]byte, sha256.Size)
	rand.Read(secret) //nolint:errcheck // crypto/rand.Read never fails
	if err := renameio.WriteFile(path, secret, 0o600); err != nil {
		return nil, fmt.Errorf("write the secret that hides which roles exist: %w", err)
	}
	return secret, nil
}
