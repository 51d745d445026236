package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Protocol numbers of the first packet.
const (
	Version30      = 3 << 16
	Version32      = 3<<16 | 2 // since PostgreSQL 18: cancel keys of up to 256 bytes
	SSLRequest     = 1234<<16 | 5679
	GSSENCRequest  = 1234<<16 | 5680
	CancelCode     = 1234<<16 | 5678
	minStartup     = 8     // a length word and a version
	maxStartup     = 10000 // MAX_STARTUP_PACKET_LENGTH
	pqOptionPrefix = "_pq_."

	// TLSHandshake is the first byte of a TLS record that begins a handshake:
	// a client that does not ask for TLS first (sslnegotiation=direct).
	TLSHandshake = 0x16
	// ALPN is the application protocol that such a client must name.
	ALPN = "postgresql"
)

// Param is one parameter of a startup packet or one ParameterStatus.
type Param struct{ Name, Value string }

// Startup is a client's first packet.
type Startup struct {
	Code uint32 // SSLRequest, GSSENCRequest, CancelCode or a protocol version

	// For a protocol version.
	Params  []Param  // in the order given, protocol options left out
	Options []string // names that begin with _pq_.

	// For CancelCode.
	PID uint32
	Key CancelKey
}

// Granted is the version that the session speaks: what the client asked for, or
// the newest that there is for it.
func (s *Startup) Granted(newest uint32) uint32 { return min(s.Code, newest) }

// Negotiates says whether the client must be told that it does not get all it
// asked for.
func (s *Startup) Negotiates(newest uint32) bool { return s.Code > newest || len(s.Options) > 0 }

// Major is the protocol's major version.
func (s *Startup) Major() int { return int(s.Code >> 16) }

// Minor is the protocol's minor version.
func (s *Startup) Minor() int { return int(s.Code & 0xffff) }

// Get finds a parameter, "" where there is none.
func (s *Startup) Get(name string) string {
	for _, p := range s.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// ReadStartup reads the first packet of a connection, of 8 to 10000 bytes, and
// not one byte more: what follows an SSLRequest must not be taken for
// plaintext (CVE-2021-23214).
func ReadStartup(r io.Reader) (*Startup, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n < minStartup || n > maxStartup {
		return nil, fmt.Errorf("%w: invalid length of startup packet", ErrProtocol)
	}
	body, err := readGrowing(r, int(n-4))
	if err != nil {
		return nil, err
	}
	return ParseStartup(body)
}

// usualStartup is more than nearly every startup packet has, in bytes.
const usualStartup = 512

// readGrowing reads n bytes into no more than twice the room of what has come:
// whoever has proved nothing shall not have memory for a length alone.
func readGrowing(r io.Reader, n int) ([]byte, error) {
	body := make([]byte, min(n, usualStartup))
	for at := 0; ; {
		if _, err := io.ReadFull(r, body[at:]); err != nil {
			return nil, err
		}
		if at = len(body); at == n {
			return body, nil
		}
		grown := make([]byte, min(2*at, n))
		copy(grown, body)
		body = grown
	}
}

// ParseStartup reads a startup packet behind its length word.
func ParseStartup(body []byte) (*Startup, error) {
	if len(body) < 4 {
		return nil, fmt.Errorf("%w: invalid length of startup packet", ErrProtocol)
	}
	s := &Startup{Code: binary.BigEndian.Uint32(body)}
	rest := body[4:]
	switch {
	case s.Code == SSLRequest || s.Code == GSSENCRequest:
		if len(rest) != 0 {
			return nil, fmt.Errorf("%w: an encryption request has a body", ErrProtocol)
		}
		return s, nil
	case s.Code == CancelCode:
		if len(rest) < 4+shortKey || len(rest) > 4+MaxKey {
			return nil, fmt.Errorf("%w: invalid length of cancel request", ErrProtocol)
		}
		s.PID, s.Key = binary.BigEndian.Uint32(rest), CancelKey(rest[4:])
		return s, nil
	case s.Major() != 3:
		return s, nil // the caller refuses it by name
	}
	return s, s.parseParams(rest)
}

// parseParams reads name and value pairs up to an empty name, which must be
// the packet's last byte: a value that hides a zero byte would otherwise
// become a parameter of its own.
func (s *Startup) parseParams(rest []byte) error {
	for {
		name, r, ok := CString(rest)
		if !ok {
			return fmt.Errorf("%w: invalid startup packet layout: expected terminator as last byte", ErrProtocol)
		}
		if len(name) == 0 {
			if len(r) != 0 {
				return fmt.Errorf("%w: invalid startup packet layout: bytes behind the terminator", ErrProtocol)
			}
			return nil
		}
		value, r, ok := CString(r)
		if !ok {
			return fmt.Errorf("%w: invalid startup packet layout: parameter %q has no value", ErrProtocol, name)
		}
		if strings.HasPrefix(string(name), pqOptionPrefix) {
			s.Options = append(s.Options, string(name))
		} else {
			s.Params = append(s.Params, Param{string(name), string(value)})
		}
		rest = r
	}
}

// AppendStartup appends a StartupMessage of protocol 3.0.
func AppendStartup(dst []byte, params []Param) ([]byte, error) {
	return AppendStartupFor(dst, Version30, params)
}

// AppendStartupFor appends a StartupMessage of a version. A zero byte in a name
// or value is refused, since it would start a parameter of its own.
func AppendStartupFor(dst []byte, version uint32, params []Param) ([]byte, error) {
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 0), version)
	for _, p := range params {
		if strings.IndexByte(p.Name, 0) >= 0 || strings.IndexByte(p.Value, 0) >= 0 {
			return nil, fmt.Errorf("%w: a startup parameter contains a zero byte", ErrProtocol)
		}
		dst = append(append(dst, p.Name...), 0)
		dst = append(append(dst, p.Value...), 0)
	}
	dst = append(dst, 0)
	if len(dst)-at > maxStartup {
		return nil, fmt.Errorf("%w: the startup packet is longer than %d bytes", ErrProtocol, maxStartup)
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst, nil
}

// AppendRequest appends an SSLRequest or another packet of a bare code.
func AppendRequest(dst []byte, code uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, 8), code)
}

// AppendNegotiate appends NegotiateProtocolVersion: the version that is granted
// and the options that are not known.
func AppendNegotiate(dst []byte, version uint32, options []string) []byte {
	dst, at := Begin(dst, NegotiateVersion)
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(options)))
	for _, o := range options {
		dst = append(append(dst, o...), 0)
	}
	return End(dst, at)
}

// CheckNegotiate judges a server's NegotiateProtocolVersion to somebody who
// asked for a version and for no options: it can only be an older one.
func CheckNegotiate(body []byte, asked uint32) error {
	if len(body) != 8 {
		return fmt.Errorf("%w: malformed NegotiateProtocolVersion, or one about options that were not asked for", ErrProtocol)
	}
	got, options := binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
	if got < Version30 || got >= asked || options != 0 {
		return fmt.Errorf("%w: the server negotiates protocol %d.%d after %d.%d was asked for", ErrProtocol, got>>16, got&0xffff, asked>>16, asked&0xffff)
	}
	return nil
}

// AppendAuth appends an AuthenticationRequest of the given kind.
func AppendAuth(dst []byte, kind uint32, data []byte) []byte {
	dst, at := Begin(dst, Authentication)
	dst = binary.BigEndian.AppendUint32(dst, kind)
	return End(append(dst, data...), at)
}

// Kinds of AuthenticationRequest.
const (
	AuthOK           = 0
	AuthCleartext    = 3
	AuthMD5          = 5
	AuthSASL         = 10
	AuthSASLContinue = 11
	AuthSASLFinal    = 12
)
