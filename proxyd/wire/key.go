package wire

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// Sizes of a cancel key in bytes.
const (
	shortKey = 4   // up to protocol 3.0, and the least of any
	longKey  = 32  // ours since 3.2, as PostgreSQL 18's
	MaxKey   = 256 // of any server since 3.2
)

// CancelKey is the secret of a BackendKeyData: whoever knows it may cancel the
// session's statements.
type CancelKey []byte

// String keeps it out of logs.
func (CancelKey) String() string { return "********" }

// GoString keeps it out of %#v.
func (CancelKey) GoString() string { return "********" }

// KeyLen is how long a key is for a session of the given protocol version.
func KeyLen(version uint32) int {
	if version >= Version32 {
		return longKey
	}
	return shortKey
}

// Equal compares in constant time. No key is equal to an empty one.
func (k CancelKey) Equal(o CancelKey) bool {
	return len(k) > 0 && subtle.ConstantTimeCompare(k, o) == 1
}

// ParseKey reads the body of a BackendKeyData. The key is a copy.
func ParseKey(body []byte) (pid uint32, key CancelKey, err error) {
	if len(body) < 4+shortKey || len(body) > 4+MaxKey {
		return 0, nil, fmt.Errorf("%w: malformed BackendKeyData", ErrProtocol)
	}
	return binary.BigEndian.Uint32(body), append(CancelKey(nil), body[4:]...), nil
}

// AppendKey appends BackendKeyData.
func AppendKey(dst []byte, pid uint32, key CancelKey) []byte {
	dst, at := Begin(dst, BackendKeyData)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return End(append(dst, key...), at)
}

// AppendCancel appends a CancelRequest.
func AppendCancel(dst []byte, pid uint32, key CancelKey) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(key)))
	dst = binary.BigEndian.AppendUint32(dst, CancelCode)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, key...)
}
