package relay_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab/relay"
)

// echo is a server that says each line back, and ends with its test.
func echo(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return ln
}

// through makes a relay before an echo and gives the address that is dialled.
func through(t *testing.T) (r *relay.Relay, far net.Listener, address string) {
	t.Helper()
	far = echo(t, "127.0.0.1:0")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	r = relay.New(func(net.Conn) string { return "here" })
	t.Cleanup(r.Close)
	if err := r.Add(t.Context(), relay.Link{To: "there", Listen: address, Dial: far.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	return r, far, address
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	var d net.Dialer
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func say(t *testing.T, c net.Conn, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
}

// hears says whether a line arrives before a limit.
func hears(c net.Conn, r *bufio.Reader, limit time.Duration, line string) error {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	got, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if got != line+"\n" {
		return fmt.Errorf("%q, not %q", got, line)
	}
	return nil
}

const (
	patient   = 10 * time.Second
	impatient = 100 * time.Millisecond
)

// What a cut holds arrives when it is mended, in its order, whichever way it
// went: TCP sends again what was lost.
func TestACutHoldsAndLosesNothing(t *testing.T) {
	for _, way := range [][2]string{{"here", "there"}, {"there", "here"}} {
		r, _, address := through(t)
		c := dial(t, address)
		in := bufio.NewReader(c)
		say(t, c, "before")
		if err := hears(c, in, patient, "before"); err != nil {
			t.Fatal(err)
		}
		r.Cut(way[0], way[1])
		say(t, c, "one")
		say(t, c, "two")
		if err := hears(c, in, impatient, "one"); err == nil {
			t.Errorf("it went through a cut from %s to %s", way[0], way[1])
		}
		// Another connection is silent too: its handshake needs both ways.
		second := dial(t, address)
		say(t, second, "late")
		if err := hears(second, bufio.NewReader(second), impatient, "late"); err == nil {
			t.Errorf("a new connection was made through a cut from %s to %s", way[0], way[1])
		}
		r.Mend(way[0], way[1])
		for _, line := range []string{"one", "two"} {
			if err := hears(c, in, patient, line); err != nil {
				t.Errorf("after a cut from %s to %s: %v", way[0], way[1], err)
			}
		}
		if err := hears(second, bufio.NewReader(second), patient, "late"); err != nil {
			t.Errorf("the connection that waited: %v", err)
		}
	}
}

// A cut between others is none of ours.
func TestACutIsBetweenTwo(t *testing.T) {
	r, _, address := through(t)
	r.Cut("elsewhere", "there")
	r.Cut("here", "elsewhere")
	c := dial(t, address)
	say(t, c, "hello")
	if err := hears(c, bufio.NewReader(c), patient, "hello"); err != nil {
		t.Error(err)
	}
}

// Chunks are delayed, and none overtakes another.
func TestJitterKeepsTheOrder(t *testing.T) {
	r, _, address := through(t)
	r.Jitter(30 * time.Millisecond)
	c := dial(t, address)
	in := bufio.NewReader(c)
	for i := range 50 {
		say(t, c, fmt.Sprint(i))
	}
	for i := range 50 {
		if err := hears(c, in, patient, fmt.Sprint(i)); err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
	}
}

// An end is passed on as an end, once what came before has arrived; a broken
// connection as a broken one.
func TestEndsArePassedOn(t *testing.T) {
	_, _, address := through(t)
	c := dial(t, address)
	say(t, c, strings.Repeat("x", 100_000))
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patient))
	if b, err := io.ReadAll(c); err != nil || len(b) != 100_001 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// Where nobody listens at the far end, a connection is refused, which tells
// more than one that breaks; where somebody does again, it is not.
func TestNobodyBehindItIsARefusal(t *testing.T) {
	_, far, address := through(t)
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	try := func() error {
		var d net.Dialer
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // the first finds out; it is reset
			_ = c.Close()
		}
		return err
	}
	for end := time.Now().Add(patient); !errors.Is(try(), syscall.ECONNREFUSED); {
		if time.Now().After(end) {
			t.Fatal("it is never refused")
		}
	}
	echo(t, far.Addr().String())
	for end := time.Now().Add(patient); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", address, patient)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it is refused for ever: %v", err)
		}
	}
}
