package hba

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// files writes a directory of files and gives its path.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, text string) *Rules {
	t.Helper()
	r, err := Load(filepath.Join(files(t, map[string]string{"hba": text}), "hba"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// asRead shows the rules as they were understood.
func asRead(r *Rules) string { return strings.TrimSuffix(r.String(), "\n") }

func TestRead(t *testing.T) {
	for _, c := range []struct{ story, text, want string }{
		{"the file of a fresh installation", "# TYPE DATABASE USER ADDRESS METHOD\nlocal all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 md5\n",
			"local all all peer\nhost all all 127.0.0.1 255.255.255.255 scram-sha-256\nhost all all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff md5"},
		{"tabs, a comment behind, DOS line ends", "host\tall  all\t10.0.0.0/8 reject # no\r\n\r\n  # nothing\r\n", "host all all 10.0.0.0 255.0.0.0 reject"},
		{"a mask of its own", "host all all 10.0.0.0 255.0.255.0 trust", "host all all 10.0.0.0 255.0.255.0 trust"},
		{"lists with blanks behind the comma", "local a,  b x, y peer", "local a,b x,y peer"},
		{"quoted words", `local "a b","c""d" "all" peer`, `local a b,c"d all peer`},
		{"a line that goes on", "host all \\\n all \\\n all trust", "host all all all trust"},
		{"keywords", "host sameuser,samerole,replication +staff samenet scram-sha-256", "host sameuser,samerole,replication +staff samenet scram-sha-256"},
		{"ident through the socket is peer", "local all all ident map=m", "local all all peer map=m"},
		{"certificates", "hostssl all all all cert map=m\nhostssl all all all scram-sha-256 clientcert=verify-ca clientname=CN", "hostssl all all all cert map=m clientcert=verify-full\nhostssl all all all scram-sha-256 clientcert=verify-ca"},
		{"not encrypted by GSSAPI, like everybody here", "hostnogssenc all all all trust", "host all all all trust"},
		{"regular expressions", `local "/^db\d{2,3}$",/x /^app_ peer`, `local /^db\d{2,3}$,/x /^app_ peer`},
	} {
		if got := asRead(load(t, c.text)); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.story, got, c.want)
		}
	}
}

func TestIncludes(t *testing.T) {
	dir := files(t, map[string]string{
		"hba":           "include more/a\ninclude_if_exists nowhere\ninclude_dir parts\nlocal @names all peer\n",
		"more/a":        "local a all peer\ninclude b\n",
		"more/b":        "local b all peer\n",
		"parts/2.conf":  "local two all peer\n",
		"parts/1.conf":  "local one all peer\n",
		"parts/.x.conf": "nonsense\n", "parts/README": "nonsense\n",
		"names": "x y,z\n# comment\n\"all\"\n",
	})
	r, err := Load(filepath.Join(dir, "hba"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := asRead(r), "local a all peer\nlocal b all peer\nlocal one all peer\nlocal two all peer\nlocal x,y,z,all all peer"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if last := r.list[4]; last.Line != 4 || r.list[1].File != filepath.Join(dir, "more/b") || last.databases[3].keyword != "" {
		t.Errorf("%s:%d, %+v", r.list[1].File, last.Line, last.databases[3])
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"tcp all all all trust", `:1: invalid connection type "tcp"; allowed: local, host,`},
		{"hostgssenc all all all gss", `hostgssenc record cannot match`},
		{"local", "end-of-line before database specification; a line is:"},
		{"local all", "end-of-line before role specification"},
		{"local all all", "end-of-line before authentication method"},
		{"host all all", "end-of-line before IP address specification"},
		{"host all all 10.0.0.1", "end-of-line before netmask specification"},
		{"host all all 10.0.0.1 trust", `invalid IP mask "trust"`},
		{"host all all 10.0.0.1 ffff:: trust", `IP address and mask do not match`},
		{"host all all 10.0.0.1/33 trust", `invalid CIDR mask in address "10.0.0.1/33"; the length is 0 to 32`},
		{"host all all 10.0.0.1/ trust", `invalid CIDR mask`},
		{"host all all 10.0.0.1/-1 trust", `invalid CIDR mask`},
		{"host all all 10.0.0.300/8 trust", `invalid IP address "10.0.0.300"`},
		{"host all all db.example.com trust", `the host name "db.example.com" cannot stand in a rule here; give the addresses`},
		{"host all all .example.com scram-sha-256", `the host name ".example.com"`},
		{"host all all db.example.com/8 trust", `specifying both host name and CIDR mask is invalid`},
		{"host all all 10.0.0.1/8,10.0.0.2/8 trust", `multiple values specified for host address`},
		{"host,local all all all trust", `multiple values specified for connection type`},
		{"local all all trust,peer", `multiple values specified for authentication type`},
		{"host all all all peer", `peer authentication is only supported on local sockets`},
		{"host all all all cert", `cert authentication is only supported on hostssl connections; write hostssl`},
		{"local all all md6", `invalid authentication method "md6"; allowed: trust, reject`},
		{"host all all all ldap ldapserver=x", `the proxy does not speak the authentication method "ldap"; use scram-sha-256`},
		{"host all all all password", `does not speak the authentication method "password"`},
		{"local all all peer nonsense", `authentication option not in name=value format: nonsense`},
		{"local all all peer krb_realm=X", `unrecognized authentication option name: "krb_realm"; allowed: map`},
		{"local all all scram-sha-256 map=x", `authentication option "map" is only valid`},
		{"host all all all scram-sha-256 clientcert=verify-full", `clientcert can only be configured for "hostssl" rows`},
		{"hostssl all all all trust clientcert=1", `invalid value for clientcert: "1"; allowed: verify-ca, verify-full`},
		{"hostssl all all all cert clientcert=verify-ca", `clientcert only accepts "verify-full"`},
		{"hostssl all all all cert clientname=DN", `invalid value for clientname: "DN"`},
		{"local /( all peer", `invalid regular expression "("`},
		{"local all + peer", `a plus sign without a role`},
		{`local "all all peer`, `a quotation mark is not closed`},
		{"local a\x00b all peer", `zero byte`},
		{"include nowhere", `:1: could not open file`},
		{"include a,b", `multiple values specified for include`},
		{"include_dir nowhere", `could not open directory`},
		{"local @nowhere all peer", `could not open file`},
		{"include hba", `files are included more than 10 deep; does a file include itself?`},
		{"local @hba all peer", `files are included more than 10 deep`},
		{"# nothing", `configuration file contains no entries; nobody could log in`},
		{"local " + strings.Repeat("a", maxToken+1) + " all peer", "a word is longer than"},
	} {
		dir := files(t, map[string]string{"hba": c.text})
		_, err := Load(filepath.Join(dir, "hba"))
		var ps Problems
		if !errors.As(err, &ps) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n%v\nwant %s", c.text, err, c.want)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "the account that runs proxyd") {
		t.Errorf("no file: %v", err)
	}
}

func TestEveryFaultIsToldWithItsLine(t *testing.T) {
	dir := files(t, map[string]string{"hba": "local all all peer\nlocal all all md6\n\nhost all all \\\nall nonsense\ninclude sub\n", "sub": "\nlocal\n"})
	_, err := Load(filepath.Join(dir, "hba"))
	if err == nil {
		t.Fatal("no problem")
	}
	got := strings.ReplaceAll(err.Error(), dir+"/", "")
	var places []string
	for _, line := range strings.Split(got, "\n") {
		place, _, _ := strings.Cut(line, ": ")
		places = append(places, place)
	}
	slices.Sort(places)
	if want := "hba:2 hba:4 sub:2"; strings.Join(places, " ") != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// some is a connection that each story changes in one thing.
func some(change func(*Connection)) Connection {
	c := Connection{
		Address: netip.MustParseAddr("10.1.2.3"), Database: "shop", User: "anna",
		MemberOf: func(role string) bool { return role == "anna" || role == "staff" },
		Interfaces: func() []netip.Prefix {
			return []netip.Prefix{netip.MustParsePrefix("10.1.2.1/24"), netip.MustParsePrefix("fd00::1/64")}
		},
	}
	if change != nil {
		change(&c)
	}
	return c
}

func TestMatch(t *testing.T) {
	nothing := (func(*Connection))(nil)
	local := func(c *Connection) { c.Local, c.Address = true, netip.Addr{} }
	encrypted := func(c *Connection) { c.TLS = true }
	from := func(a string) func(*Connection) {
		return func(c *Connection) { c.Address = netip.MustParseAddr(a) }
	}
	database := func(d string) func(*Connection) { return func(c *Connection) { c.Database = d } }
	replication := func(c *Connection) { c.Replication = true }
	for _, c := range []struct {
		story, rule string
		who         func(*Connection)
		want        bool
	}{
		{"host is for TCP", "host all all all trust", nothing, true},
		{"host is for encrypted TCP, too", "host all all all trust", encrypted, true},
		{"host is not for the socket", "host all all all trust", local, false},
		{"local is", "local all all trust", local, true},
		{"local is not for TCP", "local all all trust", nothing, false},
		{"hostssl wants encryption", "hostssl all all all trust", nothing, false},
		{"hostssl has it", "hostssl all all all trust", encrypted, true},
		{"hostnossl wants none", "hostnossl all all all trust", encrypted, false},
		{"hostnossl has none", "hostnossl all all all trust", nothing, true},
		{"inside the network", "host all all 10.1.0.0/16 trust", nothing, true},
		{"outside", "host all all 10.2.0.0/16 trust", nothing, false},
		{"bits behind the length do not count", "host all all 10.1.255.255/16 trust", nothing, true},
		{"the whole of IPv4", "host all all 0.0.0.0/0 trust", nothing, true},
		{"the whole of IPv6 is not IPv4", "host all all ::/0 trust", nothing, false},
		{"a mask with a gap", "host all all 10.0.2.0 255.0.255.0 trust", nothing, true},
		{"a mask with a gap, outside", "host all all 10.0.3.0 255.0.255.0 trust", nothing, false},
		{"IPv4 that came through an IPv6 socket", "host all all 10.1.2.3/32 trust", from("::ffff:10.1.2.3"), true},
		{"IPv6 with a zone", "host all all fe80::/10 trust", from("fe80::1%eth0"), true},
		{"samehost", "host all all samehost trust", from("10.1.2.1"), true},
		{"samehost, a neighbour", "host all all samehost trust", nothing, false},
		{"samenet, a neighbour", "host all all samenet trust", nothing, true},
		{"samenet, IPv6", "host all all samenet trust", from("fd00::99"), true},
		{"samenet, from afar", "host all all samenet trust", from("10.1.3.1"), false},
		{"a database in a list", "host news,shop all all trust", nothing, true},
		{"another database", "host news all all trust", nothing, false},
		{"names are not folded", "host SHOP all all trust", nothing, false},
		{"all in quotes is a name", `host "all" all all trust`, nothing, false},
		{"a database called all", `host "all" all all trust`, database("all"), true},
		{"sameuser", "host sameuser all all trust", database("anna"), true},
		{"sameuser, another", "host sameuser all all trust", nothing, false},
		{"samerole", "host samerole all all trust", database("staff"), true},
		{"samerole, oneself", "host samerole all all trust", database("anna"), true},
		{"samerole, another", "host samerole all all trust", nothing, false},
		{"a database by regular expression", "host /^sh all all trust", nothing, true},
		{"a regular expression that does not match", "host /^hop all all trust", nothing, false},
		{"a user", "host all anna all trust", nothing, true},
		{"a user by regular expression", "host all /^an+a$ all trust", nothing, true},
		{"another user", "host all bert all trust", nothing, false},
		{"a member", "host all +staff all trust", nothing, true},
		{"no member", "host all +wheel all trust", nothing, false},
		{"a plus sign in quotes is a name", `host all "+staff" all trust`, nothing, false},
		{"all is not for replication", "host all all all trust", replication, false},
		{"replication is", "host replication all all trust", replication, true},
		{"a name that looks like it is not", `host "replication" all all trust`, replication, false},
		{"replication is no database", "host replication all all trust", database("replication"), false},
	} {
		got := load(t, c.rule).Match(some(c.who))
		if (got != nil) != c.want {
			t.Errorf("%s: %s: %v", c.story, c.rule, got)
		}
	}
}

func TestTheFirstRuleDecides(t *testing.T) {
	r := load(t, "host all bert all trust\nhost shop all 10.0.0.0/8 reject\nhost all all all scram-sha-256\n")
	if got := r.Match(some(nil)); got == nil || got.Method != Reject || got.Line != 2 {
		t.Errorf("%v", got)
	}
	if got := r.Match(some(func(c *Connection) { c.Local = true })); got != nil {
		t.Errorf("a connection without a rule: %v", got)
	}
	if !r.Uses(Reject) || r.Uses(Peer) || r.WantsCertificates() != nil {
		t.Error("what the rules need is not known")
	}
}

func loadMaps(t *testing.T, text string) (*Maps, error) {
	t.Helper()
	return LoadMaps(filepath.Join(files(t, map[string]string{"ident": text}), "ident"))
}

func TestMaps(t *testing.T) {
	m, err := loadMaps(t, `# map system role
people  anna            anna_db
people  "root"          all
people  bert            "all"
people  carl            +staff
people  carl            "+staff"
mail    /^(.*)@example\.com$  \1
mail    /^(.*)@other\.com$    guest_\1
mail    /@third\.com$         guest
both    /^x                   /^y
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		story, name, system, role string
		want                      bool
	}{
		{"no map: the same name", "", "anna", "anna", true},
		{"no map: another name", "", "anna", "bert", false},
		{"no map: names are not folded", "", "Anna", "anna", false},
		{"as written", "people", "anna", "anna_db", true},
		{"with a map the same name is not enough", "people", "anna", "anna", false},
		{"another map", "mail", "anna", "anna_db", false},
		{"a map that does not exist", "none", "anna", "anna", false},
		{"anybody", "people", "root", "whoever", true},
		{"a role called all", "people", "bert", "all", true},
		{"all in quotes is a name", "people", "bert", "whoever", false},
		{"a member", "people", "carl", "member", true},
		{"not a member", "people", "carl", "stranger", false},
		{"a plus sign in quotes is a name", "people", "carl", "+staff", true},
		{"what the parentheses hold", "mail", "anna@example.com", "anna", true},
		{"what they hold is no keyword", "mail", "all@example.com", "anna", false},
		{"what they hold is no group", "mail", "+staff@example.com", "member", false},
		{"put into a name", "mail", "anna@other.com", "guest_anna", true},
		{"without parentheses", "mail", "x@third.com", "guest", true},
		{"no match", "mail", "anna@example.org", "anna", false},
		{"both sides", "both", "xenia", "yvonne", true},
		{"both sides, one fails", "both", "xenia", "anna", false},
	} {
		got := m.Allows(c.name, c.system, c.role, func(group string) bool { return group == "staff" && c.role == "member" })
		if got != c.want {
			t.Errorf("%s: %v", c.story, got)
		}
	}
	var none *Maps
	if none.Allows("people", "a", "a", nil) || !none.Allows("", "a", "a", nil) || none.Has("people") || !m.Has("mail") {
		t.Error("without a file")
	}
	if err := load(t, "local all all peer map=people").CheckMaps(m); err != nil {
		t.Error(err)
	}
	if err := load(t, "\nlocal all all peer map=poeple").CheckMaps(m); err == nil || !strings.Contains(err.Error(), `hba:2: there is no user name map "poeple"; define it in proxy.ident_file`) {
		t.Errorf("%v", err)
	}
}

func TestMapProblems(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"m", ":1: missing entry at end of line; a line is: map-name"},
		{"m a", "missing entry at end of line"},
		{"m a b c", "there is something behind the database user"},
		{"m a,b c", "multiple values in ident field"},
		{"m /( c", `invalid regular expression "("`},
		{`m /x \1`, "has no subexpressions as requested by backreference"},
		{"m x +", "a plus sign without a role"},
	} {
		_, err := loadMaps(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
	if _, err := LoadMaps(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file")
	}
}

// FuzzRules: whatever stands in the file, reading ends, and what was read can be
// matched against.
func FuzzRules(f *testing.F) {
	for _, text := range []string{
		"host all all 127.0.0.1/32 scram-sha-256\n", "local \"a\"\"b\",c +x peer map=m # x\n",
		"include hba\n", "local @hba all peer", "host all /^(a|b)$ ::1 ffff:: trust\\\n", "hostssl all all samenet cert clientcert=verify-full",
		"\"", ",,,", "\\\n\\\n", "host all all 1.2.3.4 255.0.255.0 md5", "include_dir .",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		make := func() *reader {
			return &reader{open: func(path string) ([]byte, error) {
				if filepath.Base(path) == "hba" && len(text) < 200 {
					return []byte(text), nil
				}
				return nil, os.ErrNotExist
			}, list: func(string) ([]string, error) { return nil, nil }}
		}
		r := make()
		r.text("/hba", text, 0)
		rules, err := r.rules("/hba")
		if err == nil {
			rules.Match(some(nil))
			if asRead(rules) == "" {
				t.Error("a rule without words")
			}
		}
		m := make()
		m.text("/hba", text, 0)
		if maps, err := m.maps(); err == nil {
			maps.Allows("m", "x", "y", func(string) bool { return true })
		}
	})
}
