package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// makeVerifier does what CREATE ROLE ... PASSWORD does.
func makeVerifier(t testing.TB, password string, salt []byte, iterations int) (secret string, client Key) {
	t.Helper()
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, keyLen)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(what string) []byte {
		m := hmac.New(sha256.New, salted)
		m.Write([]byte(what))
		return m.Sum(nil)
	}
	copy(client[:], mac("Client Key"))
	stored := sha256.Sum256(client[:])
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), client
}

// The exchange of RFC 7677, section 3.
func TestRFC7677(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	secret, key := makeVerifier(t, "pencil", salt, 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	s := NewScramServer(v, [nonceLen]byte{}, nil)
	s.nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	first, err := s.First(ScramSHA256, []byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"; string(first) != want {
		t.Errorf("server-first-message\n%s, want\n%s", first, want)
	}
	final, got, err := s.Final([]byte("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	if err != nil {
		t.Fatal(err)
	}
	if want := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="; string(final) != want {
		t.Errorf("server-final-message %s, want %s", final, want)
	}
	if got != key {
		t.Error("the proof revealed another ClientKey")
	}
}

// pass lets a client with a ClientKey log in to a server with a verifier.
func pass(server, client *Verifier, key Key) (Key, error) {
	return passThrough(server, client, key, nil, nil)
}

// passThrough does so over TLS: each side has its own idea of the server's
// certificate.
func passThrough(server, client *Verifier, key Key, shown, seen []byte) (Key, error) {
	s := NewScramServer(server, [nonceLen]byte{1}, shown)
	c := NewScramClient(client, key, [nonceLen]byte{2}, seen)
	mechanism, msg, err := c.First(s.Mechanisms())
	if err != nil {
		return Key{}, err
	}
	first, err := s.First(mechanism, msg)
	if err != nil {
		return Key{}, err
	}
	proof, err := c.Final(first)
	if err != nil {
		return Key{}, err
	}
	final, got, err := s.Final(proof)
	if err != nil {
		return Key{}, err
	}
	return got, c.Verify(final)
}

func TestTheProofOpensAServerWithTheSameVerifier(t *testing.T) {
	secret, key := makeVerifier(t, "secret", []byte("0123456789abcdef"), 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pass(v, v, key)
	if err != nil || got != key {
		t.Errorf("%v", err)
	}
	other, _ := makeVerifier(t, "secret", []byte("another salt 123"), 4096)
	o, err := ParseVerifier(other)
	if err != nil {
		t.Fatal(err)
	}
	if v.Same(o) || !v.Same(v) {
		t.Error("Same")
	}
	if _, err := pass(o, v, key); !errors.Is(err, ErrOtherVerifier) {
		t.Errorf("another salt: %v", err)
	}
	key[0]++
	if _, err := pass(v, v, key); !errors.Is(err, ErrProof) {
		t.Errorf("a wrong key: %v", err)
	}
}

func TestAServerMustProveItself(t *testing.T) {
	secret, key := makeVerifier(t, "secret", []byte("0123456789abcdef"), 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	liar := *v
	liar.ServerKey[0]++
	if _, err := pass(&liar, v, key); !errors.Is(err, ErrProof) {
		t.Errorf("a server without the ServerKey: %v", err)
	}
}

func TestMock(t *testing.T) {
	a, b := MockVerifier([]byte("x"), "nobody", DefaultIterations), MockVerifier([]byte("x"), "nobody", DefaultIterations)
	if !bytes.Equal(a.Salt, b.Salt) {
		t.Error("an unknown user is told by a salt that changes")
	}
	if _, err := pass(a, a, Key{}); !errors.Is(err, ErrProof) {
		t.Errorf("a mock was passed: %v", err)
	}
}

func TestParseVerifierRefuses(t *testing.T) {
	good, _ := makeVerifier(t, "secret", []byte("salt"), 4096)
	for _, s := range []string{
		"", "md5d2d46a7c8b0a1f3f", "SCRAM-SHA-256", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096:!$a:b",
		strings.Replace(good, "4096", "0", 1), strings.Replace(good, "4096", "99999999999", 1),
		strings.Replace(good, "SHA-256$", "SHA-1$", 1), good[:len(good)-4], good + "AAAA",
	} {
		_, err := ParseVerifier(s)
		if err == nil {
			t.Errorf("%q was accepted", s)
		} else if len(s) > len("SCRAM-SHA-256$") && strings.Contains(err.Error(), s) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
}

func TestMalformedScram(t *testing.T) {
	secret, _ := makeVerifier(t, "secret", []byte("salt"), 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{
		"", "n", "n,", "n,,", "n,,n=", "n,,n=,r=", "x,,n=,r=a", "p=tls-unique,,n=,r=a", "n,,n=,r=a\x00", "n,,n=,r=" + strings.Repeat("a", maxNonce+1),
	} {
		if _, err := NewScramServer(v, [nonceLen]byte{}, nil).First(ScramSHA256, []byte(first)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", first, err)
		}
	}
	s := NewScramServer(v, [nonceLen]byte{}, nil)
	if _, err := s.First(ScramSHA256, []byte("n,,n=,r=abc")); err != nil {
		t.Fatal(err)
	}
	for _, final := range []string{"", "c=biws", "c=biws,r=x,p=", "c=eSws,r=" + s.nonce + ",p=AAAA", "c=biws,r=" + s.nonce + ",p=AAAA"} {
		if _, _, err := s.Final([]byte(final)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", final, err)
		}
	}
}

func TestChannelBinding(t *testing.T) {
	secret, key := makeVerifier(t, "secret", []byte("0123456789abcdef"), 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := []byte("hash of our certificate"), []byte("hash of another")
	for _, c := range []struct {
		story       string
		shown, seen []byte
		code        string
	}{
		{"both know the certificate", ours, ours, ""},
		{"no TLS", nil, nil, ""},
		{"a client that cannot bind", ours, nil, ""},
		{"a server that cannot bind", nil, ours, ""},
		{"somebody between them has a certificate of his own", ours, theirs, CodeInvalidAuthorization},
	} {
		_, err := passThrough(v, v, key, c.shown, c.seen)
		if Code(err) != c.code || c.code == "" && err != nil {
			t.Errorf("%s: %v", c.story, err)
		}
	}
}

func TestMisuseOfChannelBindingIsRefused(t *testing.T) {
	secret, _ := makeVerifier(t, "secret", []byte("salt"), 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		story, mechanism, first string
		endpoint                []byte
		code                    string
	}{
		{"the offer was taken away on its way", ScramSHA256, "y,,n=,r=a", []byte("x"), CodeInvalidAuthorization},
		{"bound by name, not in fact", ScramSHA256Plus, "n,,n=,r=a", []byte("x"), ""},
		{"bound without having said so", ScramSHA256, "p=tls-server-end-point,,n=,r=a", []byte("x"), ""},
		{"to something else", ScramSHA256Plus, "p=tls-unique,,n=,r=a", []byte("x"), ""},
		{"where it was not offered", ScramSHA256Plus, "p=tls-server-end-point,,n=,r=a", nil, ""},
		{"another mechanism", "PLAIN", "n,,n=,r=a", nil, ""},
		{"an authorization identity", ScramSHA256, "n,a=x,n=,r=a", nil, CodeFeatureNotSupported},
		{"an extension that must be understood", ScramSHA256, "n,,m=1,n=,r=a", nil, CodeFeatureNotSupported},
	} {
		_, err := NewScramServer(v, [nonceLen]byte{}, c.endpoint).First(c.mechanism, []byte(c.first))
		if c.code != "" && Code(err) != c.code || c.code == "" && !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", c.story, err)
		}
	}
}

func TestAServerWithoutScramIsNotAnswered(t *testing.T) {
	for _, offered := range []string{"", "\x00", "PLAIN\x00\x00", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS\x00\x00"} {
		c := NewScramClient(&Verifier{}, Key{}, [nonceLen]byte{}, nil)
		if _, _, err := c.First([]byte(offered)); !errors.Is(err, ErrNoMechanism) {
			t.Errorf("%q: %v", offered, err)
		}
	}
}

func FuzzScramServer(f *testing.F) {
	secret, _ := makeVerifier(f, "secret", []byte("salt"), 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("n,,n=,r=abc"), []byte("c=biws,r=abc,p=AAAA"), false)
	f.Add([]byte("y,,n=u,r=a,x=y"), []byte("c=eSws,r=a,p="), false)
	f.Add([]byte("p=tls-server-end-point,,n=,r=a"), []byte(",p=,p="), true)
	f.Add([]byte("p=tls-server-end-point,,n=,r=a"), []byte("c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwseA==,r=aAAAA,p=AA=="), true)
	f.Add([]byte("n,a=x,m=,n=,r=a"), []byte("c=,r=,p="), true)
	f.Fuzz(func(t *testing.T, first, final []byte, plus bool) {
		mechanism, endpoint := ScramSHA256, []byte(nil)
		if plus {
			mechanism, endpoint = ScramSHA256Plus, []byte("x")
		}
		s := NewScramServer(v, [nonceLen]byte{}, endpoint)
		if _, err := s.First(mechanism, first); err != nil {
			return
		}
		if _, _, err := s.Final(final); err == nil {
			t.Error("a proof was accepted that nobody can make")
		}
	})
}

func FuzzScramClient(f *testing.F) {
	secret, key := makeVerifier(f, "secret", []byte("salt"), 4096)
	v, err := ParseVerifier(secret)
	if err != nil {
		f.Fatal(err)
	}
	nonce := base64.StdEncoding.EncodeToString(make([]byte, nonceLen))
	both := []byte(ScramSHA256Plus + "\x00" + ScramSHA256 + "\x00\x00")
	f.Add(both, []byte("r="+nonce+"x,s=c2FsdA==,i=4096"), []byte("v=AAAA"))
	f.Add(both, []byte("r="+nonce+",s=,i=1"), []byte("e=other-error"))
	f.Add([]byte(ScramSHA256+"\x00"), []byte("r="+strings.Repeat("a", 5000)+",s=c2FsdA==,i=4096"), []byte("v="))
	f.Add([]byte("\x00"), []byte(""), []byte(""))
	f.Fuzz(func(t *testing.T, mechanisms, first, final []byte) {
		c := NewScramClient(v, key, [nonceLen]byte{}, []byte("x"))
		c.First(mechanisms) //nolint:errcheck // a server may go on whatever it offered
		if _, err := c.Final(first); err != nil {
			return
		}
		if c.Verify(final) == nil {
			t.Error("a server's signature was accepted that nobody can make")
		}
	})
}

func FuzzVerifier(f *testing.F) {
	secret, _ := makeVerifier(f, "secret", []byte("salt"), 4096)
	for _, s := range []string{secret, "md5", "SCRAM-SHA-256$1:$:", "SCRAM-SHA-256$-1:AA==$A:A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseVerifier(s); err == nil && (v.Iterations < 1 || len(v.Salt) == 0) {
			t.Errorf("%q gave %d iterations and a salt of %d bytes", s, v.Iterations, len(v.Salt))
		}
	})
}
