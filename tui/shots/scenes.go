package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/client"
)

// Size of the pictures.
const (
	columns = 104
	lines   = 32
)

// shoot plays through the console and draws the screens worth showing. What it
// asks for is real: a drill is rehearsed and a standby is promoted.
func shoot(ctx context.Context, socket, out string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{ctx: ctx, person: open(ctx, socket, columns, lines), out: out}
	if err := healthy(ctx, socket); err != nil {
		s.err = err
	}
	s.play()
	cancel()
	if closed := s.person.close(); s.err == nil {
		s.err = closed
	}
	return s.err
}

// healthy says why there is nothing to be shown.
func healthy(ctx context.Context, socket string) error {
	c := client.New(socket)
	defer c.Close()
	s, err := c.State(ctx)
	if err != nil {
		return err
	}
	if !s.Lab {
		return fmt.Errorf("%s is no lab: for the pictures its primary would be killed and a standby promoted", s.Cluster)
	}
	return nil
}

// session is one play, with its first error.
type session struct {
	*person
	ctx context.Context
	out string
	err error
}

func (s *session) play() {
	s.want(2*time.Minute, `PROTECTED`)
	s.drill()
	s.press("4")
	s.take("configuration", `SIDE BY SIDE`)
	s.promotion()
	s.press("1")
	s.want(3*time.Minute, `PROTECTED`)
	s.press("W")
	s.wait(12 * time.Second)
	s.take("overview", `if \S+ dies now`)
	s.press("6")
	s.take("why", `(?s)RULE IN FORCE.*IF IT DIES NOW.*POLICIES`)
	s.press("2")
	s.take("events", `following`)
}

// drill rehearses the primary's death and replays what the clients saw.
func (s *session) drill() {
	s.press("W")
	s.want(5*time.Second, `ARMED`)
	s.press("3")
	s.want(20*time.Second, `primary-stop +pg_ctl`)
	s.press("down", "d")
	s.want(5*time.Second, `Type \S+ to go ahead`)
	s.confirm(s.word())
	s.want(4*time.Minute, `RESULT`)
	s.wait(time.Second)
	s.press("enter")
	s.want(5*time.Second, `TIMELINE`)
	for range 7 {
		s.press("right")
	}
	s.wait(300 * time.Millisecond)
	s.take("drill", `WHAT HAPPENED`)
	s.press("esc")
}

// promotion shows the plan and, when it is done, how it went.
func (s *session) promotion() {
	s.press("1")
	s.want(3*time.Minute, `PROTECTED`)
	s.selectStandby()
	s.press("p")
	s.want(20*time.Second, `Type \S+ to go ahead`)
	word := s.word()
	if s.err != nil {
		return
	}
	s.confirm(word[:len(word)-1])
	s.take("promote", `to go ahead: \S`)
	s.press(word[len(word)-1:])
	s.wait(time.Second)
	s.take("confirm", `enter goes ahead`)
	s.press("enter")
	// The picture is taken when the new primary is protected in its turn.
	s.want(3*time.Minute, `(?s)RESULT.*✓ every commit`+`.*✓ if `+word+` dies`)
	s.take("operation", `DONE`)
	s.wait(time.Second)
	s.press("esc")
}

// confirm types a word after the dialog's quiet time.
func (s *session) confirm(word string) {
	s.wait(time.Second)
	for _, r := range word {
		s.press(string(r))
	}
	s.wait(100 * time.Millisecond)
	if s.err == nil && word == s.word() {
		s.press("enter")
	}
}

// selectStandby moves to a standby, wherever it stands.
func (s *session) selectStandby() {
	for _, key := range []string{"", "g", "down", "down", "down", "down"} {
		if key != "" {
			s.press(key)
		}
		s.wait(300 * time.Millisecond) // what is shown may be from before the key
		if _, err := s.see(s.ctx, 300*time.Millisecond, `▌\S+\s+✓ standby`); err == nil {
			return
		}
	}
}

// word is what the dialog wants typed.
func (s *session) word() string {
	if s.err != nil {
		return ""
	}
	return typedWord(s.screen.latest())
}

func (s *session) press(keys ...string) {
	if s.err == nil {
		s.person.press(keys...)
	}
}

func (s *session) want(limit time.Duration, pattern string) {
	if s.err == nil {
		_, s.err = s.see(s.ctx, limit, pattern)
	}
}

func (s *session) wait(d time.Duration) {
	if s.err == nil {
		s.err = pass(s.ctx, d)
	}
}

// take draws what is shown once it matches.
func (s *session) take(name, pattern string) {
	if s.err != nil {
		return
	}
	view, err := s.see(s.ctx, 20*time.Second, pattern)
	if err != nil {
		s.err = err
		return
	}
	if s.err = save(render("pgtandem", view, s.width, s.height), filepath.Join(s.out, name)); s.err == nil {
		fmt.Fprintln(os.Stderr, "drew", name)
	}
}

func save(pic picture, path string) error {
	if err := os.WriteFile(path+".svg", []byte(svg(pic)), 0o644); err != nil {
		return err
	}
	f, err := os.Create(path + ".png")
	if err != nil {
		return err
	}
	if err := writePNG(f, pic); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
