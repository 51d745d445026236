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

// The SASL mechanisms that are offered and accepted. The second binds the
// exchange to the TLS channel it runs through.
const (
	ScramSHA256     = "SCRAM-SHA-256"
	ScramSHA256Plus = "SCRAM-SHA-256-PLUS"
)

const (
	keyLen        = sha256.Size
	nonceLen      = 18 // as PostgreSQL's SCRAM_RAW_NONCE_LEN
	maxNonce      = 1024
	maxIterations = 10_000_000

	bindingFlag = "p=tls-server-end-point" // RFC 5929, section 4; the only type PostgreSQL knows
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

// DefaultIterations is PostgreSQL's scram_iterations.
const DefaultIterations = 4096

// MockVerifier makes a verifier that nothing matches, for a user that does not
// exist: the same user always gets the same salt, as from PostgreSQL.
func MockVerifier(secret []byte, user string, iterations int) *Verifier {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(user))
	sum := mac.Sum(nil)
	v := &Verifier{Iterations: iterations, Salt: sum[:16]}
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
// and RFC 7677).
type ScramServer struct {
	verifier *Verifier
	endpoint []byte // what binds the exchange to its TLS channel; nil: not offered
	plus     bool   // the client chose to be bound
	nonce    string // both parts
	gs2      string
	bare     string
	first    string
}

// NewScramServer takes the nonce's random bytes, which the caller draws, and
// what EndPoint gives for the certificate that the client was shown, nil where
// there is none.
func NewScramServer(v *Verifier, random [nonceLen]byte, endpoint []byte) *ScramServer {
	return &ScramServer{verifier: v, nonce: base64.StdEncoding.EncodeToString(random[:]), endpoint: endpoint}
}

// Mechanisms is the body of AuthenticationSASL.
func (s *ScramServer) Mechanisms() []byte {
	if s.endpoint == nil {
		return []byte(ScramSHA256 + "\x00\x00")
	}
	return []byte(ScramSHA256Plus + "\x00" + ScramSHA256 + "\x00\x00")
}

// First answers SASLInitialResponse: the mechanism that the client selected and
// its client-first-message.
func (s *ScramServer) First(mechanism string, msg []byte) ([]byte, error) {
	s.plus = mechanism == ScramSHA256Plus && s.endpoint != nil
	if mechanism != ScramSHA256 && !s.plus {
		return nil, fmt.Errorf("%w: client selected an invalid SASL authentication mechanism", ErrProtocol)
	}
	flag, rest, ok := strings.Cut(string(msg), ",")
	if !ok {
		return nil, ErrScram
	}
	if err := s.flag(flag); err != nil {
		return nil, err
	}
	authzid, bare, ok := strings.Cut(rest, ",")
	switch {
	case !ok:
		return nil, ErrScram
	case authzid != "":
		return nil, Fatalf(CodeFeatureNotSupported, "client uses authorization identity, but it is not supported")
	case strings.HasPrefix(bare, "m="):
		return nil, Fatalf(CodeFeatureNotSupported, "client requires an unsupported SCRAM extension")
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
	s.gs2, s.bare, s.nonce = flag+",,", bare, nonce+s.nonce
	s.first = "r=" + s.nonce + ",s=" + base64.StdEncoding.EncodeToString(s.verifier.Salt) +
		",i=" + strconv.Itoa(s.verifier.Iterations)
	return []byte(s.first), nil
}

// flag judges what the client says of channel binding, in the words of
// read_client_first_message() in auth-scram.c. One that would bind but was not
// offered it, though it was, sits behind somebody who took the offer away.
func (s *ScramServer) flag(flag string) error {
	switch {
	case flag == "n" || flag == "y":
		if s.plus {
			return fmt.Errorf("%w: the client selected %s, but the SCRAM message does not include channel binding data", ErrScram, ScramSHA256Plus)
		}
		if flag == "y" && s.endpoint != nil {
			return Fatalf(CodeInvalidAuthorization, "SCRAM channel binding negotiation error").
				WithDetail("The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.")
		}
	case !strings.HasPrefix(flag, "p="):
		return fmt.Errorf("%w: unexpected channel-binding flag", ErrScram)
	case !s.plus:
		return fmt.Errorf("%w: the client selected %s without channel binding, but the SCRAM message includes channel binding data", ErrScram, ScramSHA256)
	case flag != bindingFlag:
		return fmt.Errorf("%w: unsupported SCRAM channel-binding type", ErrScram)
	}
	return nil
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
	if !ok {
		return nil, client, ErrScram
	}
	if !s.bound(binding) {
		if s.plus {
			return nil, client, Fatalf(CodeInvalidAuthorization, "SCRAM channel binding check failed")
		}
		return nil, client, fmt.Errorf("%w: unexpected SCRAM channel-binding attribute in client-final-message", ErrScram)
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

// bound checks the attribute that repeats the first message's header and, with
// channel binding, names the certificate that the client saw.
func (s *ScramServer) bound(attribute string) bool {
	want := []byte(s.gs2)
	if s.plus {
		want = append(want, s.endpoint...)
	}
	return subtle.ConstantTimeCompare([]byte(attribute), []byte("c="+base64.StdEncoding.EncodeToString(want))) == 1
}

// ScramClient logs in to a server with a ClientKey instead of a password.
type ScramClient struct {
	verifier *Verifier
	key      Key
	endpoint []byte
	gs2      string
	nonce    string
	bare     string
	auth     string
}

// ErrOtherVerifier means that the server keeps another verifier than the one
// the ClientKey was proved against: the password was changed meanwhile.
var ErrOtherVerifier = errors.New("the server holds another verifier than the one the client proved itself against")

// ErrNoMechanism means that the server offers none of ours.
var ErrNoMechanism = errors.New("the server offers no " + ScramSHA256)

// NewScramClient takes the nonce's random bytes, which the caller draws, and
// what EndPoint gives for the server's certificate; nil: channel binding is not
// wanted, or cannot be had.
func NewScramClient(v *Verifier, key Key, random [nonceLen]byte, endpoint []byte) *ScramClient {
	return &ScramClient{verifier: v, key: key, nonce: base64.StdEncoding.EncodeToString(random[:]), endpoint: endpoint}
}

// First chooses from the mechanisms of an AuthenticationSASL and gives
// client-first-message.
func (c *ScramClient) First(mechanisms []byte) (mechanism string, msg []byte, err error) {
	var plain, plus bool
	for {
		name, rest, ok := CString(mechanisms)
		if !ok || len(name) == 0 {
			break
		}
		plain = plain || string(name) == ScramSHA256
		plus = plus || string(name) == ScramSHA256Plus
		mechanisms = rest
	}
	switch {
	case c.endpoint != nil && plus:
		c.gs2, mechanism = bindingFlag+",,", ScramSHA256Plus
	case !plain:
		return "", nil, ErrNoMechanism
	case c.endpoint != nil: // a server that did offer it learns that the offer was taken away
		c.gs2, mechanism = "y,,", ScramSHA256
	default:
		c.gs2, mechanism = "n,,", ScramSHA256
	}
	c.bare = "n=,r=" + c.nonce
	return mechanism, []byte(c.gs2 + c.bare), nil
}

// Bound says whether the exchange is bound to the TLS channel.
func (c *ScramClient) Bound() bool { return strings.HasPrefix(c.gs2, "p") }

// Final answers server-first-message.
func (c *ScramClient) Final(msg []byte) ([]byte, error) {
	text := string(msg)
	parts := strings.Split(text, ",")
	if len(text) > 4*maxNonce || len(parts) < 3 || c.bare == "" {
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
	binding := []byte(c.gs2)
	if c.Bound() {
		binding = append(binding, c.endpoint...)
	}
	without := "c=" + base64.StdEncoding.EncodeToString(binding) + ",r=" + nonce
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
