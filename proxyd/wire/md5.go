package wire

import (
	"crypto/md5" //nolint:gosec // what servers of before scram-sha-256 still keep and ask for
	"crypto/subtle"
	"encoding/hex"
	"strings"
)

// MD5Verifier is "md5" and 32 hexadecimal digits, as pg_authid.rolpassword has
// it. It opens the server by itself: it is a secret, and as good as the
// password.
type MD5Verifier string

// String keeps it out of logs.
func (MD5Verifier) String() string { return "********" }

// GoString keeps it out of %#v.
func (MD5Verifier) GoString() string { return "********" }

// ParseMD5 says whether a stored secret is an MD5 verifier, by the rule of
// get_password_type() in crypt.c.
func ParseMD5(secret string) (v MD5Verifier, ok bool) {
	if len(secret) != 35 || !strings.HasPrefix(secret, "md5") {
		return "", false
	}
	for i := 3; i < len(secret); i++ {
		if !strings.ContainsRune("0123456789abcdef", rune(secret[i])) {
			return "", false
		}
	}
	return MD5Verifier(secret), true
}

// Answer is the PasswordMessage to an AuthenticationMD5Password with this salt,
// without its closing zero byte.
func (v MD5Verifier) Answer(salt [4]byte) string {
	sum := md5.Sum(append([]byte(v[3:]), salt[:]...)) //nolint:gosec // see above
	return "md5" + hex.EncodeToString(sum[:])
}

// Check compares an answer in constant time.
func (v MD5Verifier) Check(answer []byte, salt [4]byte) bool {
	return subtle.ConstantTimeCompare(answer, []byte(v.Answer(salt))) == 1
}
