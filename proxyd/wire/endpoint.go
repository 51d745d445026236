package wire

import (
	"crypto"
	"crypto/x509"
)

// EndPoint is the channel binding data "tls-server-end-point" of a server's
// certificate (RFC 5929, section 4.1): its hash by the function of its own
// signature, MD5 and SHA-1 raised to SHA-256. nil where the signature names no
// hash, as Ed25519 does: such a certificate cannot be bound to, in PostgreSQL
// neither.
func EndPoint(c *x509.Certificate) []byte {
	if c == nil {
		return nil
	}
	var h crypto.Hash
	switch c.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1,
		x509.SHA256WithRSA, x509.ECDSAWithSHA256, x509.DSAWithSHA256, x509.SHA256WithRSAPSS:
		h = crypto.SHA256
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h = crypto.SHA512
	default:
		return nil
	}
	if !h.Available() {
		return nil
	}
	sum := h.New()
	sum.Write(c.Raw)
	return sum.Sum(nil)
}
