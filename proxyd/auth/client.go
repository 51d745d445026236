package auth

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/hba"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// Role is what is known of the role that a client wants to be.
type Role struct {
	Exists   bool
	CanLogin bool
	Expired  bool             // VALID UNTIL is over: it has no password any more
	SCRAM    *wire.Verifier   // nil: none
	MD5      wire.MD5Verifier // "": none
	Problem  string           // why there is neither, for the log alone
}

// Channel carries the messages of one login.
type Channel interface {
	// Ask sends an AuthenticationRequest.
	Ask(kind uint32, data []byte) error
	// Answer reads the body of the client's next message, which must be a
	// password or a SASL response; wire.ErrProtocol when it is not.
	Answer() ([]byte, error)
}

// Client is one who wants to log in.
type Client struct {
	User, Database string
	Host           string // as PostgreSQL names it in its errors; "" through the Unix socket
	TLS            bool
	Replication    bool // a walsender that is connected to no database
	// Endpoint is what wire.EndPoint gives for the certificate it was shown;
	// nil: no channel binding.
	Endpoint []byte
	// Certificate was verified against client_tls.ca_file; nil: it showed none.
	Certificate *x509.Certificate
	// SystemUser is who the kernel says is at the other end of the Unix socket.
	SystemUser func() (string, error)
	MemberOf   func(role string) bool
}

// Credential is what opens a server for a client. It is secret.
type Credential struct {
	SCRAM  *wire.Verifier // what the client proved itself against
	Key    wire.Key       // of use where Proved
	Proved bool
	MD5    wire.MD5Verifier // "": the server keeps none
}

// Refusal is a login that failed: what the client is told, and what only the
// log may know.
type Refusal struct {
	Notice *wire.Notice
	Why    string
	// Proof says that the proof was wrong: what is known of the role may be out
	// of date. It is said of roles that do not exist, too, so that looking
	// again takes the same time for them.
	Proof bool
}

func (r *Refusal) Error() string {
	if r.Why == "" {
		return r.Notice.Error()
	}
	return fmt.Sprintf("%v (%s)", r.Notice, r.Why)
}

func (r *Refusal) Unwrap() error { return r.Notice }

// Authenticator knows what logins have in common.
type Authenticator struct {
	Maps *hba.Maps
	Mock []byte // makes up the verifiers of roles that do not exist
	// Iterations are those of real verifiers, which the made up ones must have;
	// 0: PostgreSQL's default.
	Iterations int
}

// Login lets the client prove itself as a rule says; nil is the rule that lets
// nobody in. What went wrong is a *Refusal, or an error of the channel.
func (a Authenticator) Login(ch Channel, c Client, rule *hba.Rule, role Role) (Credential, error) {
	cred, err := a.prove(ch, c, rule, role)
	if err != nil {
		return Credential{}, err
	}
	if rule.ClientCert == hba.VerifyFull {
		if err := a.name(c, rule); err != nil {
			return Credential{}, err
		}
	}
	if err := ch.Ask(wire.AuthOK, nil); err != nil {
		return Credential{}, err
	}
	switch {
	case !role.Exists:
		return Credential{}, refuse("", wire.CodeInvalidAuthorization, "role \"%s\" does not exist", c.User)
	case !role.CanLogin:
		return Credential{}, refuse("", wire.CodeInvalidAuthorization, "role \"%s\" is not permitted to log in", c.User)
	}
	return cred, nil
}

func refuse(why, code, format string, args ...any) *Refusal {
	return &Refusal{Notice: wire.Fatalf(code, format, args...), Why: why}
}

// prove is the method of the rule.
func (a Authenticator) prove(ch Channel, c Client, rule *hba.Rule, role Role) (Credential, error) {
	cred := Credential{}
	if !role.Expired {
		cred.MD5 = role.MD5
	}
	switch {
	case rule == nil:
		what := "no pg_hba.conf entry for"
		if c.Replication {
			what += " replication connection from"
		}
		return cred, c.turnedAway(what, "no rule is for it")
	case rule.Method == hba.Reject:
		what := "pg_hba.conf rejects connection for"
		if c.Replication {
			what = "pg_hba.conf rejects replication connection for"
		}
		return cred, c.turnedAway(what, place(rule))
	case rule.ClientCert != hba.NoCert && c.Certificate == nil:
		return cred, refuse(place(rule), wire.CodeInvalidAuthorization, "connection requires a valid client certificate")
	}
	switch rule.Method {
	case hba.Trust, hba.Cert: // the certificate's name is looked at in the end
		return cred, nil
	case hba.Peer:
		return cred, a.peer(c, rule)
	case hba.MD5:
		if role.MD5 != "" && !role.Expired {
			return cred, challenge(ch, c, role.MD5)
		}
		return a.scram(ch, c, role)
	case hba.SCRAM:
		return a.scram(ch, c, role)
	}
	return cred, refuse(place(rule), wire.CodeInternalError, "the authentication method of the rule is not known")
}

func place(r *hba.Rule) string { return fmt.Sprintf("%s:%d", r.File, r.Line) }

// turnedAway is PostgreSQL's own text; its pg_hba.conf is here the proxy's.
func (c Client) turnedAway(what, why string) *Refusal {
	host, encrypted := c.Host, "no encryption"
	if host == "" {
		host = "[local]"
	}
	if c.TLS {
		encrypted = "SSL encryption"
	}
	where := fmt.Sprintf("database \"%s\", ", c.Database)
	if c.Replication {
		where = ""
	}
	r := refuse(why, wire.CodeInvalidAuthorization, "%s host \"%s\", user \"%s\", %s%s", what, host, c.User, where, encrypted)
	r.Notice.Hint = "The rules are those of the proxy, not of the server."
	return r
}

// failed is the text of auth_failed() for a method that asks for a password.
func failed(user, why string) *Refusal {
	return refuse(why, wire.CodeInvalidPassword, "password authentication failed for user \"%s\"", user)
}

// name checks that the certificate's common name may be the role.
func (a Authenticator) name(c Client, rule *hba.Rule) error {
	why := "the certificate has no common name"
	if name := c.Certificate.Subject.CommonName; name != "" && strings.IndexByte(name, 0) < 0 {
		if a.Maps.Allows(rule.Map, name, c.User, c.MemberOf) {
			return nil
		}
		why = fmt.Sprintf("the certificate is for %q", name)
	}
	if rule.Method == hba.SCRAM || rule.Method == hba.MD5 {
		return failed(c.User, why)
	}
	if rule.Method == hba.Trust {
		return refuse(why, wire.CodeInvalidAuthorization, "\"trust\" authentication failed for user \"%s\"", c.User)
	}
	return refuse(why, wire.CodeInvalidAuthorization, "certificate authentication failed for user \"%s\"", c.User)
}

func (a Authenticator) peer(c Client, rule *hba.Rule) error {
	system, err := c.SystemUser()
	why := ""
	switch {
	case err != nil:
		why = fmt.Sprintf("the client's account is not known: %v", err)
	case a.Maps.Allows(rule.Map, system, c.User, c.MemberOf):
		return nil
	default:
		why = fmt.Sprintf("the client's account is %q", system)
	}
	return refuse(why, wire.CodeInvalidAuthorization, "Peer authentication failed for user \"%s\"", c.User)
}

// challenge is MD5.
func challenge(ch Channel, c Client, v wire.MD5Verifier) error {
	var salt [4]byte
	rand.Read(salt[:]) //nolint:errcheck // crypto/rand.Read never fails
	if err := ch.Ask(wire.AuthMD5, salt[:]); err != nil {
		return err
	}
	body, err := ch.Answer()
	if err != nil {
		return violation(err)
	}
	answer, rest, ok := wire.CString(body)
	switch {
	case !ok || len(rest) > 0:
		return refuse("", wire.CodeProtocolViolation, "invalid password packet size")
	case len(answer) == 0:
		return refuse("", wire.CodeInvalidPassword, "empty password returned by client")
	case !v.Check(answer, salt):
		r := failed(c.User, "wrong password")
		r.Proof = true
		return r
	}
	return nil
}

// scram is SCRAM-SHA-256. Whoever has no password that could be checked goes
// through the same exchange, and fails at its end.
func (a Authenticator) scram(ch Channel, c Client, role Role) (Credential, error) {
	cred := Credential{}
	v, why := role.SCRAM, role.Problem
	switch {
	case !role.Exists:
		why = "the role does not exist"
	case role.Expired:
		why = "the password has expired (VALID UNTIL)"
	case v == nil && role.MD5 != "":
		why = "the password is stored as MD5, and the rule asks for SCRAM-SHA-256"
	}
	doomed := v == nil || role.Expired || !role.Exists
	if doomed {
		v = wire.MockVerifier(a.Mock, c.User, cmp.Or(a.Iterations, wire.DefaultIterations))
	}
	key, final, err := exchange(ch, c, v)
	switch {
	case errors.Is(err, wire.ErrProof):
		if !doomed {
			why = "wrong password"
		}
		r := failed(c.User, why)
		r.Proof = true
		return cred, r
	case err != nil:
		return cred, violation(err)
	case doomed: // a mock that was passed would be no mock
		return cred, failed(c.User, why)
	}
	cred.SCRAM, cred.Key, cred.Proved = v, key, true
	return cred, ch.Ask(wire.AuthSASLFinal, final)
}

// exchange is the SASL exchange up to server-final-message.
func exchange(ch Channel, c Client, v *wire.Verifier) (key wire.Key, final []byte, err error) {
	var random [18]byte
	rand.Read(random[:]) //nolint:errcheck // crypto/rand.Read never fails
	scram := wire.NewScramServer(v, random, c.Endpoint)
	if err := ch.Ask(wire.AuthSASL, scram.Mechanisms()); err != nil {
		return key, nil, err
	}
	body, err := ch.Answer()
	if err != nil {
		return key, nil, err
	}
	mechanism, data, err := wire.ParseSASLInitial(body)
	if err != nil {
		return key, nil, err
	}
	first, err := scram.First(mechanism, data)
	if err != nil {
		return key, nil, err
	}
	if err := ch.Ask(wire.AuthSASLContinue, first); err != nil {
		return key, nil, err
	}
	if body, err = ch.Answer(); err != nil {
		return key, nil, err
	}
	final, key, err = scram.Final(body)
	return key, final, err
}

// violation makes a refusal of what the protocol does not allow; an error of
// the channel stays what it is.
func violation(err error) error {
	var n *wire.Notice
	if errors.As(err, &n) {
		return &Refusal{Notice: n}
	}
	if !errors.Is(err, wire.ErrProtocol) {
		return err
	}
	text := strings.TrimPrefix(err.Error(), wire.ErrProtocol.Error()+": ")
	message, detail, _ := strings.Cut(text, ": ")
	r := refuse("", wire.CodeProtocolViolation, "%s", message)
	r.Notice.Detail = detail
	return r
}
