package hba

import (
	"net/netip"
	"slices"
)

// Connection is what is known of a client before it proves itself.
type Connection struct {
	Local    bool       // through the Unix socket
	Address  netip.Addr // over TCP
	TLS      bool
	Database string
	User     string
	// Replication: a walsender that is connected to no database.
	Replication bool
	// MemberOf says whether the user is a member of a role, itself included,
	// superusers by name alone.
	MemberOf func(role string) bool
	// Interfaces are this host's own addresses with their networks.
	Interfaces func() []netip.Prefix
}

// Match is the first rule for the connection; nil where there is none.
func (r *Rules) Match(c Connection) *Rule {
	for _, rule := range r.list {
		if rule.matches(c) {
			return rule
		}
	}
	return nil
}

func (r *Rule) matches(c Connection) bool {
	if c.Local != (r.Kind == Local) || r.Kind == HostSSL && !c.TLS || r.Kind == HostNoSSL && c.TLS {
		return false
	}
	if !c.Local && !r.network.contains(c) {
		return false
	}
	return slices.ContainsFunc(r.databases, func(i item) bool { return i.database(c) }) &&
		slices.ContainsFunc(r.users, func(i item) bool { return i.user(c.User, c.MemberOf) })
}

// database: "all" does not mean replication, and nothing but the keyword does.
func (i item) database(c Connection) bool {
	switch {
	case c.Replication || i.keyword == "replication":
		return c.Replication && i.keyword == "replication"
	case i.keyword == "all":
		return true
	case i.keyword == "sameuser":
		return c.Database == c.User
	case i.keyword == "samerole":
		return c.MemberOf != nil && c.MemberOf(c.Database)
	case i.re != nil:
		return i.re.MatchString(c.Database)
	}
	return i.text == c.Database
}

func (i item) user(name string, memberOf func(string) bool) bool {
	switch {
	case i.keyword == "all":
		return true
	case i.keyword == "+":
		return memberOf != nil && memberOf(i.text[1:])
	case i.re != nil:
		return i.re.MatchString(name)
	}
	return i.text == name
}

func (n network) contains(c Connection) bool {
	a := c.Address.Unmap().WithZone("")
	switch n.keyword {
	case "all":
		return true
	case "samehost", "samenet":
		if c.Interfaces == nil {
			return false
		}
		return slices.ContainsFunc(c.Interfaces(), func(p netip.Prefix) bool {
			if n.keyword == "samehost" {
				return p.Addr().Unmap() == a
			}
			return p.Contains(a)
		})
	}
	if a.BitLen() != n.address.BitLen() {
		return false
	}
	have, want := a.AsSlice(), n.address.AsSlice()
	for i, m := range n.mask {
		if (have[i]^want[i])&m != 0 {
			return false
		}
	}
	return true
}
