package session

import (
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/session/statement"
)

const (
	maxSettings = 50
	maxSetting  = 1000 // bytes of one SET
)

// setting is one SET of the client's own, as it was written.
type setting struct{ name, text string }

// settings are what a client has SET for its session beside what the server
// reports. They follow it from server to server. The value is never changed
// once it is shared; nil is none.
type settings []setting

func (s settings) index(name string) int {
	return slices.IndexFunc(s, func(x setting) bool { return x.name == name })
}

// with gives the settings with one more or another value.
func (s settings) with(x setting) settings {
	out := s.without(x.name)
	return append(out, x)
}

// without gives the settings without one, "all" for none.
func (s settings) without(name string) settings {
	if name == "all" {
		return nil
	}
	out := make(settings, 0, len(s)+1)
	for _, x := range s {
		if x.name != name {
			out = append(out, x)
		}
	}
	return out
}

// same says whether two settings make the same session.
func (s settings) same(o settings) bool {
	return len(s) == len(o) && (len(s) == 0 || &s[0] == &o[0] || slices.Equal(s, o))
}

// setFrom makes the statements that give a server with the settings of have
// those of s.
func (s settings) setFrom(have settings) string {
	if s.same(have) {
		return ""
	}
	var b strings.Builder
	for _, x := range have {
		if s.index(x.name) < 0 {
			b.WriteString("RESET " + x.name + ";")
		}
	}
	for _, x := range s {
		if i := have.index(x.name); i < 0 || have[i].text != x.text {
			b.WriteString(x.text + ";")
		}
	}
	return b.String()
}

// change is a SET or RESET that was sent outside of a transaction and counts
// once the server is ready again.
type change struct {
	set   setting // name "" for a RESET
	reset string
	done  bool // its command completed
}

// traitsOf takes what a statement leaves behind. A plain SET between
// transactions is remembered, so that another server can be given it; b is
// where it goes, before it is recorded there.
func (c *client) traitsOf(b *backend, info statement.Info, text []byte) {
	traits := info.Traits
	if info.Database {
		c.vacates = true
	}
	switch {
	case info.Set == "" && info.Reset == "":
	case c.change != nil || !b.pipe.Fresh():
		traits |= statement.Setting // it may be rolled back, or not be the last
	case info.Reset != "":
		c.change = &change{reset: info.Reset}
	case len(text) <= maxSetting && (len(c.settings) < maxSettings || c.settings.index(info.Set) >= 0):
		c.change = &change{set: setting{info.Set, strings.TrimRight(string(text), "; \t\r\n")}}
		traits &^= statement.Setting
	}
	c.traits |= traits
}

// settled makes a change count: its transaction is over. Of the server's loop,
// with the lock held.
func (b *backend) settled(c *client) {
	x := c.change
	c.change = nil
	if x == nil || !x.done {
		return
	}
	if x.reset != "" {
		c.settings = c.settings.without(x.reset)
	} else {
		c.settings = c.settings.with(x.set)
	}
	b.settings = c.settings
}

// stains says whether the client leaves something in its server that DISCARD
// ALL does not take away: the temporary schema itself, a library, a parameter
// that exists because it was set, the state of random(). Which one a SET meant
// that is not remembered by its name cannot be told.
func (c *client) stains() bool {
	return c.traits&(statement.Temporary|statement.Load|statement.Setting) != 0 ||
		slices.ContainsFunc(c.settings, func(x setting) bool { return strings.Contains(x.name, ".") })
}
