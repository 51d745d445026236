package ssh

import (
	"bytes"
	"testing"
)

// FuzzOutput: whatever a command writes, in whatever pieces, is kept as it is,
// and its lines have no end in them and a bounded length.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("one\ntwo\r\nthree"), uint8(3))
	f.Add(bytes.Repeat([]byte("x"), 2*maxLine+1), uint8(255))
	f.Add([]byte("\r\r\n\n\x00\xff"), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		var said []byte
		o := newOutput(func(line string) {
			if line == "" || len(line) > maxLine || bytes.ContainsAny([]byte(line), "\r\n") {
				t.Errorf("a line of %d bytes: %q", len(line), line)
			}
			said = append(said, line...)
		})
		w := o.writer("stdout")
		for rest := text; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if got := o.seal().Stdout; !bytes.Equal(got, text) {
			t.Errorf("kept %q of %q", got, text)
		}
		want := bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r"), nil), []byte("\n"), nil)
		if !bytes.Equal(said, want) {
			t.Errorf("the lines are %q", said)
		}
	})
}
