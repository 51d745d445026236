package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestCheckFrontend(t *testing.T) {
	for _, c := range []struct {
		typ   byte
		total int64
		ok    bool
	}{
		{Query, 5, true},
		{Query, 4, false}, // a length word below four
		{Query, MaxLarge + 1, true},
		{Query, MaxLarge + 2, false},
		{Sync, 5, true},
		{Sync, MaxSmall + 2, false},
		{Execute, MaxSmall + 1, true},
		{CopyData, 1 << 29, true},
		{Password, 10, false},
		{0, 5, false},
		{'!', 5, false},
	} {
		if err := CheckFrontend(c.typ, c.total); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("type %q, %d bytes: %v", c.typ, c.total, err)
		}
	}
}

func TestHeaderDoesNotWrap(t *testing.T) {
	if _, total := Header([]byte{'Q', 0xff, 0xff, 0xff, 0xff}); total != 1<<32 {
		t.Errorf("total %d", total)
	}
}

func TestReadMessageIsBounded(t *testing.T) {
	for name, b := range map[string][]byte{
		"too long": {'p', 0, 1, 0, 4}, "wrapping": {'p', 0xff, 0xff, 0xff, 0xff}, "negative": {'p', 0, 0, 0, 3},
	} {
		if _, _, err := ReadMessage(bytes.NewReader(b), nil, MaxAuth); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ReadMessage(bytes.NewReader([]byte{'p', 0, 0, 0, 9, 1}), nil, MaxAuth); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
}

func TestStartup(t *testing.T) {
	params := []Param{{"user", "a"}, {"database", "b"}, {"options", ""}}
	packet, err := AppendStartup(nil, params)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(append(packet, "behind"...))
	s, err := ReadStartup(r)
	if err != nil {
		t.Fatal(err)
	}
	if s.Major() != 3 || s.Minor() != 0 || !reflect.DeepEqual(s.Params, params) || s.Get("database") != "b" {
		t.Errorf("%+v", s)
	}
	if r.Len() != len("behind") {
		t.Error("bytes behind the packet were taken")
	}
	if _, err := AppendStartup(nil, []Param{{"user", "a\x00database\x00b"}}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a zero byte in a value: %v", err)
	}
	if _, err := AppendStartup(nil, []Param{{"user", string(make([]byte, maxStartup))}}); err == nil {
		t.Error("a packet too long for the server was made")
	}
}

func TestStartupRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":                   {},
		"no version":              {0, 0, 0},
		"a value missing":         {0, 3, 0, 0, 'u', 0},
		"no terminator":           {0, 3, 0, 0, 'u', 0, 'v', 0},
		"bytes behind":            {0, 3, 0, 0, 0, 1},
		"SSLRequest with a body":  {4, 210, 22, 47, 1},
		"cancel request cut":      {4, 210, 22, 46, 0, 0, 0, 1},
		"cancel request too long": append([]byte{4, 210, 22, 46, 0, 0, 0, 1}, make([]byte, MaxKey+1)...),
	} {
		if _, err := ParseStartup(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCancelPacket(t *testing.T) {
	for _, n := range []int{4, 32, MaxKey} {
		key := CancelKey(bytes.Repeat([]byte{9}, n))
		s, err := ReadStartup(bytes.NewReader(AppendCancel(nil, 7, key)))
		if err != nil || s.Code != CancelCode || s.PID != 7 || !s.Key.Equal(key) {
			t.Errorf("a key of %d bytes: %+v, %v", n, s, err)
		}
		pid, got, err := ParseKey(AppendKey(nil, 7, key)[HeaderLen:])
		if err != nil || pid != 7 || !got.Equal(key) {
			t.Errorf("BackendKeyData of %d bytes: %d, %v", n, pid, err)
		}
	}
}

func TestCancelKeys(t *testing.T) {
	key := CancelKey{1, 2, 3, 4}
	if key.Equal(CancelKey{1, 2, 3}) || key.Equal(nil) || (CancelKey{}).Equal(CancelKey{}) || (CancelKey)(nil).Equal(nil) {
		t.Error("a key that is not the key is taken for it")
	}
	if text := fmt.Sprintf("%v %+v %#v %s", key, Startup{Key: key}, Startup{Key: key}, key); strings.Contains(text, "1, 2") || strings.Contains(text, "0x1") || strings.Contains(text, "[1 2") {
		t.Errorf("a key is shown: %s", text)
	}
	if KeyLen(Version30) != 4 || KeyLen(3<<16|1) != 4 || KeyLen(Version32) != 32 {
		t.Error("the length does not follow the version")
	}
	for name, body := range map[string][]byte{"short": make([]byte, 7), "long": make([]byte, 4+MaxKey+1), "empty": nil} {
		if _, _, err := ParseKey(body); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersionsAreNegotiated(t *testing.T) {
	for _, c := range []struct {
		story   string
		newest  uint32
		asked   uint32
		options []Param
		granted uint32
		told    bool
	}{
		{"every client for twenty years", Version32, Version30, nil, Version30, false},
		{"an option that nobody knows", Version32, Version30, []Param{{"_pq_.x", "1"}}, Version30, true},
		{"PostgreSQL 18", Version32, Version32, nil, Version32, false},
		{"a later one", Version32, 3<<16 | 5, nil, Version32, true},
		{"grease: a version that never will be", Version32, 3<<16 | 9999, []Param{{"_pq_.test_protocol_negotiation", ""}}, Version32, true},
		{"PostgreSQL 18 before older servers", Version30, Version32, nil, Version30, true},
		{"every client before older servers", Version30, Version30, nil, Version30, false},
	} {
		packet, err := AppendStartupFor(nil, c.asked, append(c.options, Param{"user", "a"}))
		if err != nil {
			t.Fatal(err)
		}
		s, err := ReadStartup(bytes.NewReader(packet))
		if err != nil || s.Granted(c.newest) != c.granted || s.Negotiates(c.newest) != c.told || len(s.Options) != len(c.options) {
			t.Errorf("%s: %+v, %v", c.story, s, err)
		}
	}
}

// The digest that the documentation of the protocol gives, chapter "Message
// Flow": concat('md5', md5(concat(md5(concat(password, username)), salt))).
func TestMD5(t *testing.T) {
	v, ok := ParseMD5("md5aa4c4e0a3b4ea4ad1ecee7a6f8b0ef1c")
	if !ok {
		t.Fatal("not taken for a verifier")
	}
	salt := [4]byte{1, 2, 3, 4}
	if !v.Check([]byte(v.Answer(salt)), salt) || v.Check([]byte(v.Answer(salt)), [4]byte{1, 2, 3, 5}) || v.Check(nil, salt) || v.Check([]byte(v), salt) {
		t.Error("an answer is judged wrongly")
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v %s", v, v, v, v), "aa4c") {
		t.Error("a verifier is shown")
	}
	for _, s := range []string{"", "md5", "md5AA4C4E0A3B4EA4AD1ECEE7A6F8B0EF1C", "md5aa4c4e0a3b4ea4ad1ecee7a6f8b0ef1", "md5aa4c4e0a3b4ea4ad1ecee7a6f8b0ef1cc", "xd5aa4c4e0a3b4ea4ad1ecee7a6f8b0ef1c"} {
		if _, ok := ParseMD5(s); ok {
			t.Errorf("%q is taken for a verifier", s)
		}
	}
}

func TestNotice(t *testing.T) {
	want := Errorf("40001", "lost %d", 1).WithDetail("d").WithHint("h")
	b := AppendError(nil, want)
	if typ, total := Header(b); typ != ErrorResponse || total != int64(len(b)) {
		t.Errorf("head %q %d", typ, total)
	}
	if got := ParseNotice(b[HeaderLen:]); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := ParseNotice([]byte("SERROR\x00C57P")); got.Severity != SevError || got.Code != CodeInternalError {
		t.Errorf("cut short: %+v", got)
	}
	if got := ParseNotice(nil); got.Code == "" { // CVE-2026-6666: an error without a SQLSTATE
		t.Error("an error has no code")
	}
}

func FuzzStartup(f *testing.F) {
	good, err := AppendStartup(nil, []Param{{"user", "a"}, {"_pq_.x", "1"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[4:])
	f.Add(AppendRequest(nil, SSLRequest)[4:])
	f.Add(AppendCancel(nil, 1, CancelKey{0, 0, 0, 2})[4:])
	f.Add(AppendCancel(nil, 1, make(CancelKey, MaxKey))[4:])
	f.Add([]byte{0, 3, 0x27, 0x0f, 'u', 0, 'v', 0, '_', 'p', 'q', '_', '.', 0, 0, 0})
	f.Add([]byte{0, 3, 0, 2, 'u', 0, 'v', 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStartup(b)
		if err != nil {
			return
		}
		if s.Code == CancelCode && (len(s.Key) < shortKey || len(s.Key) > MaxKey) {
			t.Errorf("a key of %d bytes", len(s.Key))
		}
		if s.Major() != 3 {
			return
		}
		for _, newest := range []uint32{Version30, Version32} {
			if got := s.Granted(newest); got > newest || got < Version30 {
				t.Errorf("granted %x of %x", got, newest)
			}
		}
		for _, p := range append(s.Params, Param{"user", ""}) {
			if bytes.IndexByte([]byte(p.Name+p.Value), 0) >= 0 || p.Name == "" {
				t.Errorf("parameter %q = %q", p.Name, p.Value)
			}
		}
	})
}

func FuzzNotice(f *testing.F) {
	f.Add(AppendError(nil, Errorf("40001", "x"))[HeaderLen:])
	f.Add([]byte("S"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if ParseNotice(b).Code == "" {
			t.Error("no code")
		}
	})
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{'p', 0, 0, 0, 4})
	f.Add([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0})
	f.Add([]byte{'p', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, err := ReadMessage(bytes.NewReader(b), nil, MaxAuth)
		if err == nil && len(body) > len(b) {
			t.Errorf("%d bytes out of %d", len(body), len(b))
		}
		if mechanism, data, err := ParseSASLInitial(b); err == nil && len(mechanism)+len(data) > len(b) {
			t.Error("more than there was")
		}
	})
}
