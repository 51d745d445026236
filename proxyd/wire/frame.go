package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Messages a client sends.
const (
	Bind         = 'B'
	Close        = 'C'
	CopyData     = 'd' // either direction
	CopyDone     = 'c' // either direction
	CopyFail     = 'f'
	Describe     = 'D'
	Execute      = 'E'
	Flush        = 'H'
	FunctionCall = 'F'
	Parse        = 'P'
	Password     = 'p' // and every SASL response
	Query        = 'Q'
	Sync         = 'S'
	Terminate    = 'X'
)

// Messages a server sends.
const (
	Authentication       = 'R'
	BackendKeyData       = 'K'
	BindComplete         = '2'
	CloseComplete        = '3'
	CommandComplete      = 'C'
	CopyBothResponse     = 'W'
	CopyInResponse       = 'G'
	CopyOutResponse      = 'H'
	DataRow              = 'D'
	EmptyQueryResponse   = 'I'
	ErrorResponse        = 'E'
	FunctionCallResponse = 'V'
	NegotiateVersion     = 'v'
	NoData               = 'n'
	NoticeResponse       = 'N'
	NotificationResponse = 'A'
	ParameterDescription = 't'
	ParameterStatus      = 'S'
	ParseComplete        = '1'
	PortalSuspended      = 's'
	ReadyForQuery        = 'Z'
	RowDescription       = 'T'
)

// Transaction states of a ReadyForQuery.
const (
	TxIdle   = 'I'
	TxOpen   = 'T'
	TxFailed = 'E'
)

// Limits in bytes, of the length word of a message.
const (
	HeaderLen = 5 // type and length word

	// MaxLarge is PostgreSQL's PQ_LARGE_MESSAGE_LIMIT, MaxSmall its
	// PQ_SMALL_MESSAGE_LIMIT.
	MaxLarge = 0x3fffffff - 1
	MaxSmall = 10000
	// MaxAuth is PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH: what a message may
	// have before its sender has proved who it is.
	MaxAuth = 65535
)

// ErrProtocol is what a peer did that the protocol does not allow. The
// connection cannot be used any further.
var ErrProtocol = errors.New("protocol violation")

// Header reads a message's type and its whole length, the type byte included.
// b holds at least HeaderLen bytes. The length is 64 bits wide, so that adding
// to it cannot wrap.
func Header(b []byte) (typ byte, total int64) {
	return b[0], int64(binary.BigEndian.Uint32(b[1:5])) + 1
}

// CheckFrontend says whether a logged-in client may send a message of this
// type and whole length, as SocketBackend() in postgres.c has it.
func CheckFrontend(typ byte, total int64) error {
	limit := int64(MaxSmall)
	switch typ {
	case Query, FunctionCall, Bind, Parse, CopyData:
		limit = MaxLarge
	case Close, Describe, Execute, Flush, Sync, Terminate, CopyDone, CopyFail:
	default:
		return fmt.Errorf("%w: invalid frontend message type %d", ErrProtocol, typ)
	}
	if length := total - 1; length < 4 || length > limit {
		return fmt.Errorf("%w: invalid message length %d of type %q", ErrProtocol, total-1, typ)
	}
	return nil
}

// CheckBackend says whether a message of a server has a length that can be.
// A server is not trusted either.
func CheckBackend(typ byte, total int64) error {
	if length := total - 1; length < 4 || length > 0x7fffffff {
		return fmt.Errorf("%w: the server sent a message of type %q with length %d", ErrProtocol, typ, length)
	}
	return nil
}

// ReadMessage reads one whole message into buf, growing it up to limit bytes
// of body. It is for logins, where messages are few; the steady state never
// keeps a message whole.
func ReadMessage(r io.Reader, buf []byte, limit int) (typ byte, body []byte, err error) {
	var head [HeaderLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	typ, total := Header(head[:])
	n := total - HeaderLen
	if n < 0 || n > int64(limit) {
		return typ, nil, fmt.Errorf("%w: invalid message length %d of type %q", ErrProtocol, total-1, typ)
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return typ, nil, err
	}
	return typ, buf, nil
}

// Begin appends a message's type and room for its length; End fills the
// length in. at is what Begin returned beside the slice.
func Begin(dst []byte, typ byte) (out []byte, at int) {
	return append(dst, typ, 0, 0, 0, 0), len(dst)
}

// End completes the message that began at at.
func End(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}

// AppendEmpty appends a message without a body.
func AppendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

// AppendReady appends ReadyForQuery.
func AppendReady(dst []byte, status byte) []byte {
	return append(dst, ReadyForQuery, 0, 0, 0, 5, status)
}

// AppendString appends a message whose body is one string.
func AppendString(dst []byte, typ byte, s string) []byte {
	dst, at := Begin(dst, typ)
	dst = append(dst, s...)
	return End(append(dst, 0), at)
}

// AppendParameter appends ParameterStatus.
func AppendParameter(dst []byte, name, value string) []byte {
	dst, at := Begin(dst, ParameterStatus)
	dst = append(dst, name...)
	dst = append(dst, 0)
	dst = append(dst, value...)
	return End(append(dst, 0), at)
}

// CString cuts the zero-terminated string at the head of b.
func CString(b []byte) (s, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], true
		}
	}
	return nil, b, false
}
