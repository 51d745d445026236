package wire

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

func TestEndPointIsTheHashOfTheSignature(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	make := func(key any, public any, algorithm x509.SignatureAlgorithm) *x509.Certificate {
		template.SignatureAlgorithm = algorithm
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := make(p256, p256.Public(), x509.ECDSAWithSHA256)
	if sum := sha256.Sum256(c.Raw); string(EndPoint(c)) != string(sum[:]) {
		t.Error("SHA-256")
	}
	c = make(p256, p256.Public(), x509.ECDSAWithSHA384)
	if sum := sha512.Sum384(c.Raw); string(EndPoint(c)) != string(sum[:]) {
		t.Error("SHA-384")
	}
	c.SignatureAlgorithm = x509.ECDSAWithSHA1
	if sum := sha256.Sum256(c.Raw); string(EndPoint(c)) != string(sum[:]) {
		t.Error("SHA-1 is not raised to SHA-256")
	}
	if EndPoint(make(ed, ed.Public(), x509.PureEd25519)) != nil || EndPoint(nil) != nil {
		t.Error("a signature without a hash has an end point")
	}
}
