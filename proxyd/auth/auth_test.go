package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/hba"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

const password = "sesame"

// secrets are what a server keeps of the password, and the key to one of them.
func secrets(t testing.TB, user string) (scram *wire.Verifier, key wire.Key, old wire.MD5Verifier) {
	t.Helper()
	salt := []byte("0123456789abcdef")
	salted, err := pbkdf2.Key(sha256.New, password, salt, 4096, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(what string) []byte {
		m := hmac.New(sha256.New, salted)
		m.Write([]byte(what))
		return m.Sum(nil)
	}
	key = wire.Key(mac("Client Key"))
	stored := sha256.Sum256(key[:])
	b64 := base64.StdEncoding.EncodeToString
	if scram, err = wire.ParseVerifier(fmt.Sprintf("SCRAM-SHA-256$4096:%s$%s:%s", b64(salt), b64(stored[:]), b64(mac("Server Key")))); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum([]byte(password + user))
	old, _ = wire.ParseMD5("md5" + hex.EncodeToString(sum[:]))
	return scram, key, old
}

// person is a client that answers with a credential, as the proxy itself does
// to a server.
type person struct {
	proof  *Proof
	answer []byte
	asked  []uint32
}

func (p *person) Ask(kind uint32, data []byte) error {
	p.asked = append(p.asked, kind)
	answer, err := p.proof.Step(append(binary.BigEndian.AppendUint32(nil, kind), data...))
	if err != nil {
		return fmt.Errorf("the client: %w", err)
	}
	p.answer = answer
	return nil
}

func (p *person) Answer() ([]byte, error) {
	if p.answer == nil {
		return nil, io.EOF
	}
	return p.answer[wire.HeaderLen:], nil
}

func rule(t testing.TB, line string) *hba.Rule {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hba")
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := hba.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return rules.Match(hba.Connection{Local: strings.HasPrefix(line, "local"), TLS: strings.HasPrefix(line, "hostssl"), User: "anna"})
}

func maps(t testing.TB, text string) *hba.Maps {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ident")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := hba.LoadMaps(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLogin(t *testing.T) {
	scram, key, old := secrets(t, "anna")
	good := Role{Exists: true, CanLogin: true, SCRAM: scram}
	md5Role := Role{Exists: true, CanLogin: true, MD5: old}
	with := func(r Role, change func(*Role)) Role { change(&r); return r }
	right := Credential{SCRAM: scram, Key: key, Proved: true, MD5: old}
	wrong := Credential{SCRAM: scram, Proved: true, MD5: wire.MD5Verifier("md5" + strings.Repeat("0", 32))}
	cert := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	}
	badPassword := `28P01 password authentication failed for user "anna"`
	for _, c := range []struct {
		story, rule string
		role        Role
		has         Credential
		cert        *x509.Certificate
		system      string
		want        string // "" or the SQLSTATE and the message
		asked       string // the kinds of requests
	}{
		{"SCRAM", "host all all all scram-sha-256", good, right, nil, "", "", "10 11 12 0"},
		{"SCRAM, wrong password", "host all all all scram-sha-256", good, wrong, nil, "", badPassword, "10 11"},
		{"SCRAM, no such role", "host all all all scram-sha-256", Role{}, right, nil, "", badPassword, "10 11"},
		{"SCRAM, expired", "host all all all scram-sha-256", with(good, func(r *Role) { r.Expired = true }), right, nil, "", badPassword, "10 11"},
		{"SCRAM, no password", "host all all all scram-sha-256", with(good, func(r *Role) { r.SCRAM = nil }), right, nil, "", badPassword, "10 11"},
		{"SCRAM, an MD5 verifier", "host all all all scram-sha-256", md5Role, right, nil, "", badPassword, "10 11"},
		{"SCRAM, may not log in", "host all all all scram-sha-256", with(good, func(r *Role) { r.CanLogin = false }), right, nil, "", `28000 role "anna" is not permitted to log in`, "10 11 12 0"},
		{"md5", "host all all all md5", md5Role, right, nil, "", "", "5 0"},
		{"md5, wrong password", "host all all all md5", md5Role, wrong, nil, "", badPassword, "5"},
		{"md5 with a SCRAM verifier is SCRAM", "host all all all md5", good, right, nil, "", "", "10 11 12 0"},
		{"md5, no such role, is SCRAM", "host all all all md5", Role{}, right, nil, "", badPassword, "10 11"},
		{"md5, expired, is SCRAM", "host all all all md5", with(md5Role, func(r *Role) { r.Expired = true }), right, nil, "", badPassword, "10 11"},
		{"trust", "host all all all trust", good, Credential{}, nil, "", "", "0"},
		{"trust, no such role", "host all all all trust", Role{}, Credential{}, nil, "", `28000 role "anna" does not exist`, "0"},
		{"trust, may not log in", "host all all all trust", Role{Exists: true}, Credential{}, nil, "", `28000 role "anna" is not permitted to log in`, "0"},
		{"trust does not mind an expired password", "host all all all trust", with(good, func(r *Role) { r.Expired = true }), Credential{}, nil, "", "", "0"},
		{"reject", "host all all all reject", good, right, nil, "", `28000 pg_hba.conf rejects connection for host "10.0.0.1", user "anna", database "shop", no encryption`, ""},
		{"cert", "hostssl all all all cert", good, Credential{}, cert("anna"), "", "", "0"},
		{"cert of somebody else", "hostssl all all all cert", good, Credential{}, cert("bert"), "", `28000 certificate authentication failed for user "anna"`, ""},
		{"cert without a name", "hostssl all all all cert", good, Credential{}, cert(""), "", `28000 certificate authentication failed for user "anna"`, ""},
		{"cert with a name cut short", "hostssl all all all cert", good, Credential{}, cert("anna\x00.evil"), "", `28000 certificate authentication failed for user "anna"`, ""},
		{"no cert", "hostssl all all all cert", good, Credential{}, nil, "", `28000 connection requires a valid client certificate`, ""},
		{"cert by a map", "hostssl all all all cert map=m", good, Credential{}, cert("Anna Doe"), "", "", "0"},
		{"cert not in the map", "hostssl all all all cert map=m", good, Credential{}, cert("anna"), "", `28000 certificate authentication failed for user "anna"`, ""},
		{"cert, no such role", "hostssl all all all cert", Role{}, Credential{}, cert("anna"), "", `28000 role "anna" does not exist`, "0"},
		{"a password and any certificate", "hostssl all all all scram-sha-256 clientcert=verify-ca", good, right, cert("bert"), "", "", "10 11 12 0"},
		{"a password and one's own certificate", "hostssl all all all scram-sha-256 clientcert=verify-full", good, right, cert("anna"), "", "", "10 11 12 0"},
		{"a password and another's certificate", "hostssl all all all scram-sha-256 clientcert=verify-full", good, right, cert("bert"), "", badPassword, "10 11 12"},
		{"a password and no certificate", "hostssl all all all scram-sha-256 clientcert=verify-ca", good, right, nil, "", `28000 connection requires a valid client certificate`, ""},
		{"trust and another's certificate", "hostssl all all all trust clientcert=verify-full", good, right, cert("bert"), "", `28000 "trust" authentication failed for user "anna"`, ""},
		{"peer", "local all all peer", good, Credential{}, nil, "anna", "", "0"},
		{"peer, somebody else", "local all all peer", good, Credential{}, nil, "bert", `28000 Peer authentication failed for user "anna"`, ""},
		{"peer, an account without a name", "local all all peer", good, Credential{}, nil, "", `28000 Peer authentication failed for user "anna"`, ""},
		{"peer by a map", "local all all peer map=m", good, Credential{}, nil, "adm", "", "0"},
	} {
		a := Authenticator{Maps: maps(t, "m \"Anna Doe\" anna\nm adm anna\n"), Mock: []byte("x")}
		ch := &person{proof: NewProof(c.has, nil, BindingPrefer)}
		client := Client{User: "anna", Database: "shop", Host: "10.0.0.1", Certificate: c.cert, SystemUser: func() (string, error) {
			if c.system == "" {
				return "", errors.New("unknown userid 1234")
			}
			return c.system, nil
		}}
		cred, err := a.Login(ch, client, rule(t, c.rule), c.role)
		var refusal *Refusal
		got := ""
		if errors.As(err, &refusal) {
			got = refusal.Notice.Code + " " + refusal.Notice.Message
			if refusal.Notice.Severity != wire.SevFatal {
				t.Errorf("%s: %s", c.story, refusal.Notice.Severity)
			}
		} else if err != nil && !errors.Is(err, wire.ErrOtherVerifier) {
			t.Errorf("%s: %v", c.story, err)
		} else if err != nil { // our client does not go on with a salt that it does not know
			got = badPassword
			ch.asked = append(ch.asked[:0], 10, 11)
		}
		if asked := strings.Trim(fmt.Sprint(ch.asked), "[]"); got != c.want || asked != c.asked {
			t.Errorf("%s: %q after %s, want %q after %s", c.story, got, asked, c.want, c.asked)
		}
		if c.want != "" && cred != (Credential{}) {
			t.Errorf("%s: a refused client has a credential", c.story)
		}
		if refusal != nil && strings.Contains(refusal.Error(), string(old)) {
			t.Errorf("%s: a secret is shown: %v", c.story, refusal)
		}
	}
}

func TestNobodyWithoutARule(t *testing.T) {
	_, err := Authenticator{}.Login(&person{}, Client{User: "anna", Database: "shop", TLS: true}, nil, Role{})
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Notice.Message != `no pg_hba.conf entry for host "[local]", user "anna", database "shop", SSL encryption` || refusal.Notice.Code != "28000" {
		t.Errorf("%v", err)
	}
}

// A role that does not exist must look like one whose password is wrong, down
// to the salt, which stays the same as long as the secret does.
func TestUnknownRolesAreNotTold(t *testing.T) {
	first := func(user string, mock string) string {
		ch := &recorder{}
		_, err := Authenticator{Mock: []byte(mock)}.Login(ch, Client{User: user}, rule(t, "host all all all scram-sha-256"), Role{})
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(ch.first, ",s=")
		return after
	}
	if salt := first("nobody", "x"); salt != first("nobody", "x") {
		t.Error("the salt of one name changes")
	}
	if first("nobody", "x") == first("no one", "x") || first("nobody", "x") == first("nobody", "y") {
		t.Error("all names have one salt")
	}
	if got := first("nobody", "x"); len(got) != len("MDEyMzQ1Njc4OWFiY2RlZg==,i=4096") || !strings.HasSuffix(got, ",i=4096") {
		t.Errorf("it looks like no salt of PostgreSQL's: %s", got)
	}
}

// recorder answers the first SCRAM message and hangs up.
type recorder struct{ first string }

func (r *recorder) Ask(kind uint32, data []byte) error {
	if kind == wire.AuthSASLContinue {
		r.first = string(data)
	}
	return nil
}

func (r *recorder) Answer() ([]byte, error) {
	if r.first != "" {
		return nil, io.EOF
	}
	return wire.AppendSASLInitial(nil, wire.ScramSHA256, []byte("n,,n=,r=abc"))[wire.HeaderLen:], nil
}

func ask(kind uint32, data string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, kind), data...)
}

// TestAHostileServer goes through what a server may try to be let off its own
// proof, or to get more than a proof.
func TestAHostileServer(t *testing.T) {
	scram, key, old := secrets(t, "anna")
	both := Credential{SCRAM: scram, Key: key, Proved: true}
	offered := ask(wire.AuthSASL, wire.ScramSHA256+"\x00\x00")
	for _, c := range []struct {
		story    string
		cred     Credential
		binding  Binding
		endpoint []byte
		says     [][]byte
		want     error
	}{
		{"it trusts", both, BindingPrefer, nil, [][]byte{ask(wire.AuthOK, "")}, nil},
		{"it skips its proof", both, BindingPrefer, nil, [][]byte{offered, ask(wire.AuthOK, "")}, wire.ErrProtocol},
		{"it proves nothing", both, BindingPrefer, nil, [][]byte{offered, ask(wire.AuthSASLFinal, "v=AAAA"), ask(wire.AuthOK, "")}, wire.ErrProtocol},
		{"it goes on where nothing began", both, BindingPrefer, nil, [][]byte{ask(wire.AuthSASLContinue, "r=x,s=AAAA,i=1")}, wire.ErrProtocol},
		{"it begins again", both, BindingPrefer, nil, [][]byte{offered, offered}, wire.ErrProtocol},
		{"it asks after it let us in", both, BindingPrefer, nil, [][]byte{ask(wire.AuthOK, ""), offered}, wire.ErrProtocol},
		{"it sends a nonce that is not ours", both, BindingPrefer, nil, [][]byte{offered, ask(wire.AuthSASLContinue, "r=x,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096")}, wire.ErrProtocol},
		{"it sends a nonce without end", both, BindingPrefer, nil, [][]byte{offered, ask(wire.AuthSASLContinue, "r="+strings.Repeat("x", 60000)+",s=AAAA,i=4096")}, wire.ErrProtocol},
		{"it wants the password", both, BindingPrefer, nil, [][]byte{ask(wire.AuthCleartext, "")}, ErrMethod},
		{"it wants MD5 of who has SCRAM", both, BindingPrefer, nil, [][]byte{ask(wire.AuthMD5, "salt")}, ErrMethod},
		{"it has MD5 for who has MD5", Credential{MD5: old}, BindingPrefer, nil, [][]byte{ask(wire.AuthMD5, "salt"), ask(wire.AuthOK, "")}, nil},
		{"it wants MD5 twice, with another salt", Credential{MD5: old}, BindingPrefer, nil, [][]byte{ask(wire.AuthMD5, "salt"), ask(wire.AuthMD5, "SALT")}, wire.ErrProtocol},
		{"it sends half a salt", Credential{MD5: old}, BindingPrefer, nil, [][]byte{ask(wire.AuthMD5, "sa")}, wire.ErrProtocol},
		{"it wants SCRAM of who proved nothing", Credential{MD5: old}, BindingPrefer, nil, [][]byte{offered}, ErrMethod},
		{"it wants GSSAPI", both, BindingPrefer, nil, [][]byte{ask(7, "")}, ErrMethod},
		{"it wants what nobody knows", both, BindingPrefer, nil, [][]byte{ask(4711, "")}, ErrMethod},
		{"it says nothing", both, BindingPrefer, nil, [][]byte{{}}, wire.ErrProtocol},
		{"it trusts, and binding is required", both, BindingRequire, []byte("x"), [][]byte{ask(wire.AuthOK, "")}, ErrMethod},
		{"it hides the binding", both, BindingRequire, []byte("x"), [][]byte{offered}, ErrMethod},
		{"it has no TLS to bind to", both, BindingRequire, nil, [][]byte{ask(wire.AuthSASL, wire.ScramSHA256Plus+"\x00"+wire.ScramSHA256+"\x00\x00")}, ErrMethod},
		{"it wants MD5, and binding is required", Credential{MD5: old}, BindingRequire, []byte("x"), [][]byte{ask(wire.AuthMD5, "salt")}, ErrMethod},
	} {
		p := NewProof(c.cred, c.endpoint, c.binding)
		var err error
		for _, said := range c.says {
			if _, err = p.Step(said); err != nil {
				break
			}
		}
		if c.want == nil && (err != nil || !p.Done()) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.story, err, c.want)
		}
	}
}

// TestWhereSCRAMIsRequired: a server that asks for less, or for nothing, has
// proved nothing either.
func TestWhereSCRAMIsRequired(t *testing.T) {
	scram, key, old := secrets(t, "anna")
	for story, said := range map[string][]byte{"it trusts": ask(wire.AuthOK, ""), "it wants MD5": ask(wire.AuthMD5, "salt")} {
		p := NewProof(Credential{SCRAM: scram, Key: key, Proved: true, MD5: old}, nil, BindingPrefer)
		p.RequireSCRAM()
		if _, err := p.Step(said); !errors.Is(err, ErrMethod) || p.Done() {
			t.Errorf("%s: %v, done %v", story, err, p.Done())
		}
	}
}

func TestBothSidesBindToTheChannel(t *testing.T) {
	scram, key, _ := secrets(t, "anna")
	for _, c := range []struct {
		story       string
		shown, seen string
		binding     Binding
		ok          bool
	}{
		{"one certificate", "c", "c", BindingRequire, true},
		{"one certificate, binding refused", "c", "c", BindingDisable, true},
		{"somebody between", "c", "d", BindingPrefer, false},
	} {
		ch := &person{proof: NewProof(Credential{SCRAM: scram, Key: key, Proved: true}, []byte(c.seen), c.binding)}
		_, err := Authenticator{}.Login(ch, Client{User: "anna", TLS: true, Endpoint: []byte(c.shown)}, rule(t, "host all all all scram-sha-256"), Role{Exists: true, CanLogin: true, SCRAM: scram})
		if (err == nil) != c.ok || err != nil && wire.Code(err) != wire.CodeInvalidAuthorization {
			t.Errorf("%s: %v", c.story, err)
		}
	}
}

// scripted is a client that sends whatever it likes.
type scripted struct{ answers [][]byte }

func (*scripted) Ask(uint32, []byte) error { return nil }

func (s *scripted) Answer() ([]byte, error) {
	if len(s.answers) == 0 {
		return nil, io.EOF
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return a, nil
}

// FuzzLogin: whatever a client sends, it does not get in, and what it is told
// is a FATAL with a code.
func FuzzLogin(f *testing.F) {
	scram, _, old := secrets(f, "anna")
	rules := map[bool]*hba.Rule{true: rule(f, "host all all all md5"), false: rule(f, "host all all all scram-sha-256")}
	initial := wire.AppendSASLInitial(nil, wire.ScramSHA256, []byte("n,,n=,r=abc"))[wire.HeaderLen:]
	f.Add(initial, []byte("c=biws,r=abc,p=AAAA"), false, false)
	f.Add(wire.AppendSASLInitial(nil, wire.ScramSHA256Plus, []byte("p=tls-server-end-point,,n=,r=a"))[wire.HeaderLen:], []byte("c=,r=a,p="), false, true)
	f.Add([]byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"), []byte{}, false, false)
	f.Add([]byte("SCRAM-SHA-256\x00\x7f\xff\xff\xffx"), []byte{}, false, true)
	f.Add([]byte("md5aa4c4e0a3b4ea4ad1ecee7a6f8b0ef1c\x00"), []byte{}, true, false)
	f.Add([]byte(string(old)+"\x00"), []byte{}, true, false)
	f.Add([]byte("\x00"), []byte("x"), true, false)
	f.Fuzz(func(t *testing.T, first, second []byte, isMD5, secure bool) {
		role := Role{Exists: true, CanLogin: true, SCRAM: scram}
		if isMD5 {
			role.SCRAM, role.MD5 = nil, old
		}
		client := Client{User: "anna"}
		if secure {
			client.TLS, client.Endpoint = true, []byte("c")
		}
		_, err := Authenticator{Mock: []byte("x")}.Login(&scripted{[][]byte{first, second}}, client, rules[isMD5], role)
		if err == nil {
			t.Fatal("somebody without the password was let in")
		}
		var refusal *Refusal
		if errors.As(err, &refusal) && (refusal.Notice.Code == "" || refusal.Notice.Severity != wire.SevFatal || refusal.Notice.Message == "") {
			t.Errorf("%+v", refusal.Notice)
		}
	})
}

// FuzzProof: whatever a server says, the key does not leave, and a server that
// asked for SCRAM is not believed without its own proof.
func FuzzProof(f *testing.F) {
	scram, key, old := secrets(f, "anna")
	f.Add(ask(wire.AuthSASL, wire.ScramSHA256+"\x00\x00"), ask(wire.AuthSASLContinue, "r=x,s=AAAA,i=4096"), ask(wire.AuthSASLFinal, "v=AAAA"), ask(wire.AuthOK, ""))
	f.Add(ask(wire.AuthSASL, wire.ScramSHA256Plus+"\x00\x00"), ask(wire.AuthOK, ""), []byte{}, []byte{})
	f.Add(ask(wire.AuthMD5, "salt"), ask(wire.AuthMD5, "tlas"), ask(wire.AuthOK, ""), []byte{})
	f.Add(ask(wire.AuthOK, ""), ask(wire.AuthSASL, ""), []byte{0}, []byte{0, 0, 0, 99})
	f.Fuzz(func(t *testing.T, a, b, c, d []byte) {
		for _, cred := range []Credential{{SCRAM: scram, Key: key, Proved: true}, {MD5: old}, {}} {
			p := NewProof(cred, []byte("endpoint"), BindingPrefer)
			asked := false
			for _, said := range [][]byte{a, b, c, d} {
				answer, err := p.Step(said)
				if err != nil {
					break
				}
				asked = asked || len(said) > 3 && binary.BigEndian.Uint32(said) == wire.AuthSASL
				if strings.Contains(string(answer), base64.StdEncoding.EncodeToString(key[:])) || strings.Contains(string(answer), string(old)) {
					t.Fatal("the secret itself was sent")
				}
			}
			if p.Done() && asked {
				t.Fatal("a server was believed that proved nothing")
			}
		}
	})
}
