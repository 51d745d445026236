package auth

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Binding is what is asked of channel binding with a server, in libpq's words.
type Binding string

// Values of Binding.
const (
	BindingDisable Binding = "disable"
	BindingPrefer  Binding = "prefer"
	BindingRequire Binding = "require"
)

// ErrMethod: the server wants a proof that the credential cannot give, or does
// not give the proof that is asked of it.
var ErrMethod = errors.New("unsupported authentication method")

// Proof answers one server's AuthenticationRequests with a client's credential.
// The server is not trusted: it gets nothing that would open another one, but
// where it is MD5 that it asks for and keeps.
type Proof struct {
	cred     Credential
	endpoint []byte
	binding  Binding
	only     bool // SCRAM, and nothing less

	scram    *wire.ScramClient
	answered bool // MD5, or the SCRAM proof
	verified bool // the server's own proof held
	done     bool
}

// NewProof prepares the answers. endpoint is what wire.EndPoint gives for the
// server's certificate, nil without TLS.
func NewProof(cred Credential, endpoint []byte, binding Binding) *Proof {
	if binding == BindingDisable {
		endpoint = nil
	}
	return &Proof{cred: cred, endpoint: endpoint, binding: binding}
}

// RequireSCRAM refuses a server that lets the client in by anything else: one
// that asks for nothing proves nothing either.
func (p *Proof) RequireSCRAM() { p.only = true }

// Done says whether the server has let the client in.
func (p *Proof) Done() bool { return p.done }

// Step answers the body of one AuthenticationRequest; nil is no answer.
func (p *Proof) Step(body []byte) (answer []byte, err error) {
	if len(body) < 4 || p.done {
		return nil, fmt.Errorf("%w: malformed or unexpected AuthenticationRequest", wire.ErrProtocol)
	}
	kind, data := binary.BigEndian.Uint32(body), body[4:]
	switch {
	case kind == wire.AuthOK:
		return nil, p.finish()
	case kind == wire.AuthMD5 && p.scram == nil && !p.answered:
		return p.md5(data)
	case kind == wire.AuthSASL && p.scram == nil && !p.answered:
		return p.first(data)
	case kind == wire.AuthSASLContinue && p.scram != nil && !p.answered:
		final, err := p.scram.Final(data)
		if err != nil {
			return nil, err
		}
		p.answered = true
		out, at := wire.Begin(nil, wire.Password)
		return wire.End(append(out, final...), at), nil
	case kind == wire.AuthSASLFinal && p.scram != nil && p.answered && !p.verified:
		if err := p.scram.Verify(data); err != nil {
			return nil, err
		}
		p.verified = true
		return nil, nil
	case kind == wire.AuthSASL || kind == wire.AuthSASLContinue || kind == wire.AuthSASLFinal || kind == wire.AuthMD5:
		return nil, fmt.Errorf("%w: the server's AuthenticationRequest is out of its turn", wire.ErrProtocol)
	}
	name, known := map[uint32]string{wire.AuthCleartext: "password", 2: "krb5", 6: "scm", 7: "gss", 8: "gss", 9: "sspi"}[kind]
	if !known {
		name = fmt.Sprintf("number %d", kind)
	}
	return nil, fmt.Errorf("%w: the server asks for method %s; pg_hba.conf must say scram-sha-256 (or trust) for connections from the proxy", ErrMethod, name)
}

// finish judges AuthenticationOk. A server that was challenged must have proved
// itself, too.
func (p *Proof) finish() error {
	switch {
	case p.scram != nil && !p.verified:
		return fmt.Errorf("%w: the server skipped its own proof", wire.ErrProtocol)
	case p.binding == BindingRequire && (p.scram == nil || !p.scram.Bound()):
		return fmt.Errorf("%w: the server let the client in without channel binding, and server_tls.channel_binding is \"require\"", ErrMethod)
	case p.only && p.scram == nil:
		return fmt.Errorf("%w: the server let the client in without SCRAM, and server_tls.require_auth is \"scram-sha-256\"", ErrMethod)
	}
	p.done = true
	return nil
}

func (p *Proof) md5(data []byte) ([]byte, error) {
	switch {
	case len(data) != 4:
		return nil, fmt.Errorf("%w: malformed AuthenticationMD5Password", wire.ErrProtocol)
	case p.binding == BindingRequire:
		return nil, fmt.Errorf("%w: the server asks for md5, and server_tls.channel_binding is \"require\"", ErrMethod)
	case p.only:
		return nil, fmt.Errorf("%w: the server asks for md5, and server_tls.require_auth is \"scram-sha-256\"", ErrMethod)
	case p.cred.MD5 == "":
		return nil, fmt.Errorf("%w: the server asks for md5, but the role's password is not stored as MD5; pg_hba.conf must say scram-sha-256 for connections from the proxy", ErrMethod)
	}
	p.answered = true
	return wire.AppendString(nil, wire.Password, p.cred.MD5.Answer([4]byte(data))), nil
}

func (p *Proof) first(mechanisms []byte) ([]byte, error) {
	if !p.cred.Proved {
		return nil, fmt.Errorf("%w: the server asks for SCRAM-SHA-256, and the client did not prove itself by it; "+
			"pg_hba.conf must say cert or trust for this role's connections from the proxy, or the proxy's rules scram-sha-256", ErrMethod)
	}
	var random [18]byte
	rand.Read(random[:]) //nolint:errcheck // crypto/rand.Read never fails
	scram := wire.NewScramClient(p.cred.SCRAM, p.cred.Key, random, p.endpoint)
	mechanism, msg, err := scram.First(mechanisms)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrMethod, err)
	case p.binding == BindingRequire && !scram.Bound():
		return nil, fmt.Errorf("%w: the server offers no channel binding, and server_tls.channel_binding is \"require\"", ErrMethod)
	}
	p.scram = scram
	return wire.AppendSASLInitial(nil, mechanism, msg), nil
}
