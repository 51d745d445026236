package provision

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
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
	return verifierWith(password, salt, iterations)
}

func verifierWith(password string, salt []byte, rounds int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("make a verifier: %w", err)
	}
	client := mac(salted, "Client Key")
	stored := sha256.Sum256(client)
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, e(salt), e(stored[:]), e(mac(salted, "Server Key"))), nil
}

// maxRounds is more than anybody sets scram_iterations to. What a server claims
// beyond it would keep a processor busy for whoever controls that server.
const maxRounds = 1_000_000

// matches says whether a stored verifier is the password's. One of another
// kind is not: md5 is what we replace.
func matches(stored, password string) bool {
	rest, ok := strings.CutPrefix(stored, "SCRAM-SHA-256$")
	if !ok {
		return false
	}
	head, _, _ := strings.Cut(rest, "$")
	number, text, _ := strings.Cut(head, ":")
	rounds, errRounds := strconv.Atoi(number)
	salt, errSalt := base64.StdEncoding.DecodeString(text)
	if errRounds != nil || errSalt != nil || rounds < 1 || rounds > maxRounds {
		return false
	}
	v, err := verifierWith(password, salt, rounds)
	return err == nil && hmac.Equal([]byte(v), []byte(stored))
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
