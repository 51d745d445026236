package selfsigned

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
)

// TestItCanBeShown, and is believed by whoever trusts it alone.
func TestItCanBeShown(t *testing.T) {
	cert, key, err := New("localhost")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(cert)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: trusted}); err != nil {
		t.Error(err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: "elsewhere", Roots: trusted}); err == nil {
		t.Error("it is good for another host")
	}
}
