package session

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/hba"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// TLS modes of clients.
const (
	TLSDisable = "disable" // refuse to speak TLS
	TLSAllow   = "allow"   // speak it when the client asks; to servers, when they insist
	TLSRequire = "require" // refuse clients that do not
)

// TLS modes of servers, as libpq's sslmode; TLSDisable, TLSAllow and TLSRequire
// too.
const (
	TLSPrefer     = "prefer"
	TLSVerifyCA   = "verify-ca"
	TLSVerifyFull = "verify-full"
)

// Security is who gets in and how connections are encrypted. It can be changed
// while the server runs, by Secure: connections that are made later follow it,
// those that are there stay.
type Security struct {
	ClientTLS ClientTLS
	ServerTLS ServerTLS

	Rules *hba.Rules // nil: SCRAM-SHA-256 for everybody
	Maps  *hba.Maps

	// MockSecret makes up the salts of roles that do not exist. It should
	// outlast a restart, or a salt that changes with it tells such a role;
	// empty: one is drawn.
	MockSecret []byte
}

// ClientTLS is TLS between clients and the proxy. It never is spoken through a
// Unix socket.
type ClientTLS struct {
	Mode        string           // "" is TLSDisable
	Certificate *tls.Certificate // nil only with TLSDisable
	CAs         *x509.CertPool   // who may sign clients' certificates; nil: none is asked for
	MinVersion  uint16           // 0: TLS 1.2
}

// ServerTLS is TLS between the proxy and the servers.
type ServerTLS struct {
	Mode           string           // "" is TLSDisable
	Roots          *x509.CertPool   // nil: the system's
	Certificate    *tls.Certificate // shown to servers that ask for one; nil: none
	MinVersion     uint16           // 0: TLS 1.2
	Direct         bool             // TLS from the first byte (sslnegotiation=direct)
	ChannelBinding auth.Binding     // "" is auth.BindingPrefer
	RequireSCRAM   bool             // of them, too: who asks for less, or for nothing, is refused
}

// security is Security made ready.
type security struct {
	Security
	clientTLS *tls.Config
	endpoint  []byte // of the certificate that clients are shown
}

// Check says why Secure would refuse it.
func (o Security) Check() error {
	_, err := o.ready()
	return err
}

func (o Security) ready() (*security, error) {
	if o.ClientTLS.Mode == "" {
		o.ClientTLS.Mode = TLSDisable
	}
	if o.ServerTLS.Mode == "" {
		o.ServerTLS.Mode = TLSDisable
	}
	if o.ServerTLS.ChannelBinding == "" {
		o.ServerTLS.ChannelBinding = auth.BindingPrefer
	}
	if len(o.MockSecret) == 0 {
		o.MockSecret = make([]byte, 32)
		rand.Read(o.MockSecret) //nolint:errcheck // crypto/rand.Read never fails
	}
	s := &security{Security: o}
	if o.Rules != nil {
		if err := o.Rules.CheckMaps(o.Maps); err != nil {
			return nil, err
		}
		if r := o.Rules.WantsCertificates(); r != nil && (o.ClientTLS.CAs == nil || o.ClientTLS.Mode == TLSDisable) {
			return nil, fmt.Errorf("%s:%d: client certificates can only be checked if a root certificate store is available; set client_tls.mode and client_tls.ca_file", r.File, r.Line)
		}
	}
	if o.ServerTLS.Direct && !o.ServerTLS.strict() {
		return nil, fmt.Errorf("server_tls.negotiation is \"direct\", which leaves no way back to plaintext, but server_tls.mode is %q; use \"require\" or better", o.ServerTLS.Mode)
	}
	if o.ClientTLS.Mode == TLSDisable {
		return s, nil
	}
	return s, s.prepareClientTLS()
}

func (s *security) prepareClientTLS() error {
	t := s.ClientTLS
	if t.Certificate == nil || len(t.Certificate.Certificate) == 0 {
		return fmt.Errorf("client_tls.mode is %q but there is no certificate", t.Mode)
	}
	leaf, err := x509.ParseCertificate(t.Certificate.Certificate[0])
	if err != nil {
		return fmt.Errorf("client_tls.cert_file: %w", err)
	}
	s.endpoint = wire.EndPoint(leaf)
	s.clientTLS = &tls.Config{
		Certificates: []tls.Certificate{*t.Certificate}, MinVersion: atLeast12(t.MinVersion),
		NextProtos: []string{wire.ALPN}, ClientCAs: t.CAs,
		SessionTicketsDisabled: true, // as in PostgreSQL: a ticket would outlive a change of the rules
	}
	if t.CAs != nil {
		s.clientTLS.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return nil
}

func atLeast12(v uint16) uint16 { return max(v, tls.VersionTLS12) }

// strict says whether no connection may go without TLS.
func (t ServerTLS) strict() bool {
	switch t.Mode {
	case TLSDisable, TLSAllow, TLSPrefer, "":
		return false
	}
	return true
}

// ways are the attempts at a connection, in libpq's order: whether with TLS.
func (t ServerTLS) ways() []bool {
	switch t.Mode {
	case TLSDisable:
		return []bool{false}
	case TLSAllow:
		return []bool{false, true}
	case TLSPrefer:
		return []bool{true, false}
	}
	return []bool{true}
}

// config is for a server of this host name. The mode says what is checked, as
// libpq's sslmode has it: require checks the chain only when roots are given.
func (t ServerTLS) config(host string) *tls.Config {
	c := &tls.Config{ServerName: host, RootCAs: t.Roots, MinVersion: atLeast12(t.MinVersion), NextProtos: []string{wire.ALPN}}
	if t.Certificate != nil {
		c.Certificates = []tls.Certificate{*t.Certificate}
	}
	c.InsecureSkipVerify = true // VerifyConnection checks what the mode asks for
	chain := t.Mode == TLSVerifyFull || t.Mode == TLSVerifyCA || t.Mode == TLSRequire && t.Roots != nil
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if !chain {
			return nil
		}
		opts := x509.VerifyOptions{Roots: t.Roots, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		leaf := state.PeerCertificates[0]
		if _, err := leaf.Verify(opts); err != nil {
			return err
		}
		if t.Mode == TLSVerifyFull {
			return verifyHost(leaf, host)
		}
		return nil
	}
	return c
}

// verifyHost takes the common name where the certificate has no alternative
// names at all, as libpq does: those that PostgreSQL's documentation tells to
// make have none.
func verifyHost(leaf *x509.Certificate, host string) error {
	if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) > 0 {
		return leaf.VerifyHostname(host)
	}
	if leaf.Subject.CommonName == "" {
		return errors.New("the server's certificate has no name")
	}
	named := &x509.Certificate{Raw: leaf.Raw, DNSNames: []string{leaf.Subject.CommonName}}
	if host == leaf.Subject.CommonName {
		return nil // an address as the common name, too
	}
	return named.VerifyHostname(host)
}
