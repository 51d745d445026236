package session

import (
	"bytes"
	"net"
	"testing"

	"github.com/pgtandem/pgtandem/proxyd/auth"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// said is a server that says what it was given and hears nothing.
type said struct {
	net.Conn
	*bytes.Reader
}

func (s said) Read(b []byte) (int, error)  { return s.Reader.Read(b) }
func (s said) Write(b []byte) (int, error) { return len(b), nil }

// FuzzServerLogin: whatever a server says at the login, it ends, and it is over
// only after the server has let us in.
func FuzzServerLogin(f *testing.F) {
	in := authRequest(wire.AuthOK, "")
	scram := authRequest(wire.AuthSASL, wire.ScramSHA256+"\x00\x00")
	key := string(wire.AppendKey(nil, 7, wire.CancelKey("key!")))
	for _, text := range []string{
		in + packet('S', "TimeZone\x00UTC\x00") + key + ready + "rest",
		packet('v', "\x00\x03\x00\x00\x00\x00\x00\x00") + in + key + ready,
		packet('v', "\x00\x03\x27\x0f\x00\x00\x00\x01x\x00") + ready,
		scram + in + ready, ready, "R\xff\xff\xff\xff", "S\x00\x00\x00\x04", "K\x00\x00\x00\x04" + ready,
		packet('E', "SFATAL\x00C28000\x00Mno\x00\x00"), packet('E', ""), packet('N', "S"),
		scram + authRequest(wire.AuthSASLContinue, "r=x,s=AAAA,i=1") + authRequest(wire.AuthSASLFinal, "v=AAAA") + in + ready,
	} {
		f.Add([]byte(text))
	}
	params := []wire.Param{{Name: "user", Value: "test1"}}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := wire.MockVerifier([]byte("x"), "test1", wire.DefaultIterations)
		proof := auth.NewProof(auth.Credential{SCRAM: v, Proved: true}, nil, auth.BindingPrefer)
		d, err := logIn(said{Reader: bytes.NewReader(data)}, params, proof)
		if err != nil {
			if d != nil || blame(err).Error() == "" {
				t.Errorf("%v, %v", d, err)
			}
			return
		}
		if !proof.Done() || len(d.key) > wire.MaxKey || !bytes.HasSuffix(data, d.rest) {
			t.Errorf("let in %v, a key of %d bytes, %d bytes left", proof.Done(), len(d.key), len(d.rest))
		}
	})
}
