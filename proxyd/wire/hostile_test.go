package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
)

// asked is a reader that notes the most it was ever asked for at once.
type asked struct {
	io.Reader
	most int
}

func (a *asked) Read(b []byte) (int, error) {
	a.most = max(a.most, len(b))
	return a.Reader.Read(b)
}

// TestAStartupPacketHasOnlyTheRoomItFills: PostgreSQL's bounds, and no memory
// for a length that nothing follows.
func TestAStartupPacketHasOnlyTheRoomItFills(t *testing.T) {
	packet := func(n int) []byte {
		b := append([]byte{0, 0, byte(n >> 8), byte(n)}, "\x00\x03\x00\x00user\x00"...)
		b = append(b, bytes.Repeat([]byte{'x'}, n-len(b)-2)...)
		return append(b, 0, 0)
	}
	for _, n := range []int{40, usualStartup, usualStartup + 4, usualStartup + 5, 3000, maxStartup} {
		s, err := ReadStartup(bytes.NewReader(append(packet(n), "behind"...)))
		if err != nil || len(s.Get("user")) != n-15 {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, head := range []string{"\x00\x00\x27\x11", "\x00\x00\x00\x07", "\x00\x00\x00\x00", "\xff\xff\xff\xff", "\x80\x00\x00\x08"} {
		if _, err := ReadStartup(bytes.NewReader([]byte(head + "\x00\x03\x00\x00\x00"))); !errors.Is(err, ErrProtocol) {
			t.Errorf("length %x: %v", head, err)
		}
	}
	r := &asked{Reader: bytes.NewReader(packet(maxStartup)[:20])}
	if _, err := ReadStartup(r); !errors.Is(err, io.ErrUnexpectedEOF) || r.most > usualStartup {
		t.Errorf("a packet that stops after 20 bytes was given room for %d: %v", r.most, err)
	}
}

// FuzzReadStartup: a packet that is read whole is what ParseStartup makes of
// it, and not one byte behind it is taken.
func FuzzReadStartup(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
	f.Add([]byte("\x00\x00\x00\x0f\x00\x03\x00\x00user\x00a\x00"))
	f.Add([]byte("\x00\x00\x27\x10\x00\x03\x00\x00user\x00"))
	f.Add([]byte("\x00\x00\x00\x10\x00\x03\x00\x00user\x00ab\x00\x00more"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		s, err := ReadStartup(r)
		if err != nil {
			return
		}
		took := len(b) - r.Len()
		own, err := ParseStartup(b[4:took])
		if err != nil || fmt.Sprint(own) != fmt.Sprint(s) || took != int(b[2])<<8|int(b[3]) {
			t.Errorf("took %d bytes: %v, and at once %v, %v", took, s, own, err)
		}
	})
}
