package provision

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// iterations is PostgreSQL's SCRAM_SHA_256_DEFAULT_ITERATIONS.
const iterations = 4096

// verifier makes what PostgreSQL stores for a password (RFC 5802, section 3;
// PostgreSQL docs, 53.8 "pg_authid"). Sending it in place of the password keeps
// the password out of the server's log.
func verifier(password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("make a verifier: %w", err)
	}
	client := mac(salted, "Client Key")
	stored := sha256.Sum256(client)
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, e(salt), e(stored[:]), e(mac(salted, "Server Key"))), nil
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
