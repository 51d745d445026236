package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ScramSHA256 is the only SASL mechanism offered and accepted.
const ScramSHA256 = "SCRAM-SHA-256"

const (
	keyLen        = sha256.Size
	nonceLen      = 18 // as PostgreSQL's SCRAM_RAW_NONCE_LEN
	maxNonce      = 1024
	maxIterations = 10_000_000
)

// ErrScram is a malformed SCRAM message, ErrProof a proof that does not hold.
var (
	ErrScram = fmt.Errorf("%w: malformed SCRAM message", ErrProtocol)
	ErrProof = errors.New("the proof does not match the verifier")
)

// Key is a SCRAM key. A ClientKey opens a server: it is a secret.
type Key [keyLen]byte

// String keeps a key out of logs.
func (Key) String() string { return "********" }

// Verifier is what a server keeps of a password (pg_authid.rolpassword):
// enough to check a proof, not enough to make one.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  Key
	ServerKey  Key
}

// ParseVerifier reads "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>"
// (RFC 5803, as PostgreSQL stores it). Its errors never quote the secret.
func ParseVerifier(s string) (*Verifier, error) {
	scheme, rest, _ := strings.Cut(s, "$")
	if scheme != ScramSHA256 {
		return nil, errors.New("the password is not stored as SCRAM-SHA-256; set it again with password_encryption = 'scram-sha-256'")
	}
	head, keys, ok1 := strings.Cut(rest, "$")
	iter, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	if !ok1 || !ok2 || !ok3 {
		return nil, errors.New("the stored SCRAM-SHA-256 verifier is malformed")
	}
	v := &Verifier{}
	var err error
	if v.Iterations, err = strconv.Atoi(iter); err != nil || v.Iterations < 1 || v.Iterations > maxIterations {
		return nil, errors.New("the stored SCRAM-SHA-256 verifier has an invalid iteration count")
	}
	if v.Salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(v.Salt) == 0 || len(v.Salt) > maxNonce {
		return nil, errors.New("the stored SCRAM-SHA-256 verifier has an invalid salt")
	}
	if !decodeKey(&v.StoredKey, stored) || !decodeKey(&v.ServerKey, server) {
		return nil, errors.New("the stored SCRAM-SHA-256 verifier has an invalid key")
	}
	return v, nil
}

// Same says whether both stand for one password with one salt, in which case
// a ClientKey proved against one opens the other.
func (v *Verifier) Same(o *Verifier) bool {
	return v.Iterations == o.Iterations && bytes.Equal(v.Salt, o.Salt) && v.StoredKey == o.StoredKey
}

func decodeKey(k *Key, s string) bool {
	b, err := base64.StdEncoding.DecodeString(s)
	return err == nil && copy(k[:], b) == keyLen && len(b) == keyLen
}

// MockVerifier makes a verifier that nothing matches, for a user that does not
// exist: the same user always gets the same salt, as from PostgreSQL.
func MockVerifier(secret []byte, user string) *Verifier {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(user))
	sum := mac.Sum(nil)
	v := &Verifier{Iterations: 4096, Salt: sum[:16]}
	mac.Write([]byte{0})
	copy(v.StoredKey[:], mac.Sum(nil))
	copy(v.ServerKey[:], sum)
	return v
}

func sign(key Key, message string) (out Key) {
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(message))
	mac.Sum(out[:0])
	return out
}

func xor(a, b Key) (out Key) {
	subtle.XORBytes(out[:], a[:], b[:])
	return out
}

// ScramServer is one login of a client, seen from the server's side (RFC 5802
// and RFC 7677), without channel binding.
type ScramServer struct {
	verifier *Verifier
	nonce    string // both parts
	gs2      string
	bare     string
	first    string
}

// NewScramServer takes the nonce's random bytes, which the caller draws.
func NewScramServer(v *Verifier, random [nonceLen]byte) *ScramServer {
	return &ScramServer{verifier: v, nonce: base64.StdEncoding.EncodeToString(random[:])}
}

// First answers client-first-message.
func (s *ScramServer) First(msg []byte) ([]byte, error) {
	text := string(msg)
	flag, rest, ok := strings.Cut(text, ",")
	if !ok {
		return nil, ErrScram
	}
	switch {
	case flag == "n" || flag == "y":
	case strings.HasPrefix(flag, "p="):
		return nil, fmt.Errorf("%w: channel binding was not offered", ErrScram)
	default:
		return nil, fmt.Errorf("%w: unexpected channel-binding flag", ErrScram)
	}
	authzid, bare, ok := strings.Cut(rest, ",")
	if !ok || authzid != "" { // an authorization identity is not supported, as in PostgreSQL
		return nil, ErrScram
	}
	user, tail, ok := strings.Cut(bare, ",")
	if !ok || !strings.HasPrefix(user, "n=") { // the name in it is ignored: the startup packet's counts
		return nil, ErrScram
	}
	nonce, _, _ := strings.Cut(tail, ",")
	nonce, ok = strings.CutPrefix(nonce, "r=")
	if !ok || !validNonce(nonce) {
		return nil, ErrScram
	}
	s.gs2, s.bare, s.nonce = flag+","+authzid+",", bare, nonce+s.nonce
	s.first = "r=" + s.nonce + ",s=" + base64.StdEncoding.EncodeToString(s.verifier.Salt) +
		",i=" + strconv.Itoa(s.verifier.Iterations)
	return []byte(s.first), nil
}

func validNonce(n string) bool {
	if n == "" || len(n) > maxNonce {
		return false
	}
	for i := range len(n) {
		if n[i] < 0x21 || n[i] > 0x7e || n[i] == ',' {
			return false
		}
	}
	return true
}

// Final checks client-final-message. It gives server-final-message and the
// ClientKey that the proof reveals, which is what opens the servers; ErrProof
// when the password was wrong.
func (s *ScramServer) Final(msg []byte) (final []byte, client Key, err error) {
	text := string(msg)
	at := strings.LastIndex(text, ",p=")
	if at < 0 {
		return nil, client, ErrScram
	}
	without, proof64 := text[:at], text[at+3:]
	binding, tail, ok := strings.Cut(without, ",")
	if !ok || binding != "c="+base64.StdEncoding.EncodeToString([]byte(s.gs2)) {
		return nil, client, fmt.Errorf("%w: channel binding does not match", ErrScram)
	}
	nonce, _, _ := strings.Cut(tail, ",")
	if subtle.ConstantTimeCompare([]byte(nonce), []byte("r="+s.nonce)) != 1 {
		return nil, client, fmt.Errorf("%w: nonce does not match", ErrScram)
	}
	var proof Key
	if !decodeKey(&proof, proof64) {
		return nil, client, ErrScram
	}
	auth := s.bare + "," + s.first + "," + without
	client = xor(proof, sign(s.verifier.StoredKey, auth))
	stored := sha256.Sum256(client[:])
	signature := sign(s.verifier.ServerKey, auth)
	if subtle.ConstantTimeCompare(stored[:], s.verifier.StoredKey[:]) != 1 {
		return nil, Key{}, ErrProof
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature[:])), client, nil
}

// ScramClient logs in to a server with a ClientKey instead of a password.
type ScramClient struct {
	verifier *Verifier
	key      Key
	nonce    string
	bare     string
	auth     string
}

// ErrOtherVerifier means that the server keeps another verifier than the one
// the ClientKey was proved against: the password was changed meanwhile.
var ErrOtherVerifier = errors.New("the server holds another verifier than the one the client proved itself against")

// NewScramClient takes the nonce's random bytes, which the caller draws.
func NewScramClient(v *Verifier, key Key, random [nonceLen]byte) *ScramClient {
	return &ScramClient{verifier: v, key: key, nonce: base64.StdEncoding.EncodeToString(random[:])}
}

// First is client-first-message.
func (c *ScramClient) First() []byte {
	c.bare = "n=,r=" + c.nonce
	return []byte("n,," + c.bare)
}

// Final answers server-first-message.
func (c *ScramClient) Final(msg []byte) ([]byte, error) {
	text := string(msg)
	parts := strings.Split(text, ",")
	if len(text) > 4*maxNonce || len(parts) < 3 {
		return nil, ErrScram
	}
	nonce, ok1 := strings.CutPrefix(parts[0], "r=")
	salt64, ok2 := strings.CutPrefix(parts[1], "s=")
	iter, ok3 := strings.CutPrefix(parts[2], "i=")
	if !ok1 || !ok2 || !ok3 || !validNonce(nonce) || !strings.HasPrefix(nonce, c.nonce) || len(nonce) == len(c.nonce) {
		return nil, ErrScram
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil {
		return nil, ErrScram
	}
	if iter != strconv.Itoa(c.verifier.Iterations) || !bytes.Equal(salt, c.verifier.Salt) {
		return nil, ErrOtherVerifier
	}
	without := "c=" + base64.StdEncoding.EncodeToString([]byte("n,,")) + ",r=" + nonce
	c.auth = c.bare + "," + text + "," + without
	proof := xor(c.key, sign(c.verifier.StoredKey, c.auth))
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof[:])), nil
}

// Verify checks server-final-message: the server, too, must know the verifier.
func (c *ScramClient) Verify(msg []byte) error {
	text, ok := strings.CutPrefix(string(msg), "v=")
	if !ok || c.auth == "" {
		return ErrScram
	}
	text, _, _ = strings.Cut(text, ",")
	var got Key
	if !decodeKey(&got, text) {
		return ErrScram
	}
	want := sign(c.verifier.ServerKey, c.auth)
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return fmt.Errorf("%w: the server's signature is wrong", ErrProof)
	}
	return nil
}

// ParseSASLInitial reads SASLInitialResponse.
func ParseSASLInitial(body []byte) (mechanism string, data []byte, err error) {
	name, rest, ok := CString(body)
	if !ok || len(rest) < 4 {
		return "", nil, ErrScram
	}
	n := int64(int32(uint32(rest[0])<<24 | uint32(rest[1])<<16 | uint32(rest[2])<<8 | uint32(rest[3])))
	rest = rest[4:]
	if n != int64(len(rest)) {
		return "", nil, ErrScram
	}
	return string(name), rest, nil
}

// AppendSASLInitial appends SASLInitialResponse.
func AppendSASLInitial(dst []byte, mechanism string, data []byte) []byte {
	dst, at := Begin(dst, Password)
	dst = append(append(dst, mechanism...), 0)
	n := len(data)
	dst = append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return End(append(dst, data...), at)
}
