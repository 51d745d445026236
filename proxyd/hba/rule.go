package hba

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kind is the first word of a rule: which connections it is for.
type Kind string

// Kinds of rules.
const (
	Local     Kind = "local" // through the Unix socket
	Host      Kind = "host"  // over TCP, encrypted or not
	HostSSL   Kind = "hostssl"
	HostNoSSL Kind = "hostnossl"
)

// Method says how a client proves himself.
type Method string

// Methods of rules.
const (
	Trust  Method = "trust"
	Reject Method = "reject"
	SCRAM  Method = "scram-sha-256"
	MD5    Method = "md5" // where the server still keeps an MD5 verifier, SCRAM where it does not
	Cert   Method = "cert"
	Peer   Method = "peer"
)

// CertLevel is what a rule asks of a client's certificate besides the method.
type CertLevel int

// Levels of certificates.
const (
	NoCert     CertLevel = iota
	VerifyCA             // signed by an authority of client_tls.ca_file
	VerifyFull           // and its name may log in as the role
)

// Rule is one line.
type Rule struct {
	File       string
	Line       int
	Kind       Kind
	databases  []item
	users      []item
	network    network
	Method     Method
	Map        string // a user name map, for cert and peer; "" for the same name
	ClientCert CertLevel
}

// String is the rule with every word in its plain form, as pg_hba_file_rules
// shows it: where it stands is not part of it.
func (r *Rule) String() string {
	words := []string{string(r.Kind), itemsText(r.databases), itemsText(r.users)}
	switch {
	case r.Kind == Local:
	case r.network.keyword != "":
		words = append(words, r.network.keyword)
	default:
		mask, _ := netip.AddrFromSlice(r.network.mask)
		words = append(words, r.network.address.String(), mask.String())
	}
	words = append(words, string(r.Method))
	if r.Map != "" {
		words = append(words, "map="+r.Map)
	}
	switch r.ClientCert {
	case VerifyCA:
		words = append(words, "clientcert=verify-ca")
	case VerifyFull:
		words = append(words, "clientcert=verify-full")
	}
	return strings.Join(words, " ")
}

func itemsText(list []item) string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = x.text
	}
	return strings.Join(out, ",")
}

// item is one word of the databases or users of a rule.
type item struct {
	keyword string // all, sameuser, samerole, replication, "+" for members of a role
	text    string // as it stands, without quotation marks
	re      *regexp.Regexp
}

// network is the address of a rule.
type network struct {
	keyword string // all, samehost, samenet
	address netip.Addr
	mask    []byte // as long as the address; not always a prefix
}

// Rules are all the rules, in order.
type Rules struct{ list []*Rule }

// Load reads a rules file and what it includes. Its faults are Problems.
func Load(path string) (*Rules, error) {
	r := system()
	if err := r.read(path, 0); err != nil {
		return nil, Problems{{File: path, Message: err.Error(), Remedy: "the account that runs proxyd must be able to read it"}}
	}
	return r.rules(path)
}

func (r *reader) rules(path string) (*Rules, error) {
	out := &Rules{}
	for _, rec := range r.records {
		rule, err := newRule(rec)
		if err != nil {
			r.problems = append(r.problems, at(rec.file, rec.line, err))
			continue
		}
		out.list = append(out.list, rule)
	}
	if err := r.problems.err(); err != nil {
		return nil, err
	}
	if len(out.list) == 0 {
		return nil, Problems{{File: path, Message: "configuration file contains no entries", Remedy: "nobody could log in; add a rule, such as: host all all all scram-sha-256"}}
	}
	return out, nil
}

// String is every rule on a line.
func (r *Rules) String() string {
	var b strings.Builder
	for _, x := range r.list {
		b.WriteString(x.String() + "\n")
	}
	return b.String()
}

// Uses says whether some rule has this method.
func (r *Rules) Uses(m Method) bool {
	return slices.ContainsFunc(r.list, func(x *Rule) bool { return x.Method == m })
}

// WantsCertificates says where a rule first needs to check a client's
// certificate; nil for nowhere.
func (r *Rules) WantsCertificates() *Rule {
	for _, x := range r.list {
		if x.ClientCert != NoCert {
			return x
		}
	}
	return nil
}

// CheckMaps tells rules that name a map which does not exist: they could never
// let anybody in.
func (r *Rules) CheckMaps(m *Maps) error {
	var ps Problems
	for _, x := range r.list {
		if x.Map != "" && !m.Has(x.Map) {
			ps = append(ps, Problem{x.File, x.Line, "there is no user name map " + strconv.Quote(x.Map), "define it in proxy.ident_file, or leave map= away"})
		}
	}
	return ps.err()
}

// fieldsOf hands out the fields of a record one after another.
type fieldsOf struct {
	fields [][]token
}

func (f *fieldsOf) next() []token {
	if len(f.fields) == 0 {
		return nil
	}
	first := f.fields[0]
	f.fields = f.fields[1:]
	return first
}

const ruleForm = "a line is: type database user [address] method [options]"

// single is a field that has one word.
func (f *fieldsOf) single(missing, what string) (token, error) {
	field := f.next()
	switch len(field) {
	case 0:
		return token{}, wrong(ruleForm, "end-of-line before %s", missing)
	case 1:
		return field[0], nil
	}
	return token{}, wrong("write a line for each", "multiple values specified for %s", what)
}

func newRule(rec record) (*Rule, error) {
	rule := &Rule{File: rec.file, Line: rec.line}
	f := &fieldsOf{rec.fields}
	kind, err := f.single("connection type", "connection type")
	if err != nil {
		return nil, err
	}
	if rule.Kind, err = kindOf(kind.text); err != nil {
		return nil, err
	}
	if rule.databases, err = items(f.next(), "database", databaseItem); err != nil {
		return nil, err
	}
	if rule.users, err = items(f.next(), "role", userItem); err != nil {
		return nil, err
	}
	if rule.Kind != Local {
		if rule.network, err = networkOf(f); err != nil {
			return nil, err
		}
	}
	method, err := f.single("authentication method", "authentication type")
	if err != nil {
		return nil, err
	}
	if rule.Method, err = methodOf(method.text, rule.Kind); err != nil {
		return nil, err
	}
	for field := f.next(); field != nil; field = f.next() {
		for _, option := range field {
			if err := rule.option(option.text); err != nil {
				return nil, err
			}
		}
	}
	if rule.Method == Cert {
		rule.ClientCert = VerifyFull
	}
	return rule, nil
}

func kindOf(word string) (Kind, error) {
	switch k := Kind(word); k {
	case Local, Host, HostSSL, HostNoSSL:
		return k, nil
	}
	switch word {
	case "hostnogssenc":
		return Host, nil // no connection here is ever encrypted by GSSAPI
	case "hostgssenc":
		return "", wrong("take the line away: no connection to the proxy is ever encrypted by GSSAPI", "hostgssenc record cannot match")
	}
	return "", wrong("allowed: local, host, hostssl, hostnossl, hostnogssenc", "invalid connection type %q", word)
}

func items(field []token, what string, one func(token) (item, error)) ([]item, error) {
	if field == nil {
		return nil, wrong(ruleForm, "end-of-line before %s specification", what)
	}
	out := make([]item, 0, len(field))
	for _, t := range field {
		i, err := one(t)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

func databaseItem(t token) (item, error) {
	for _, keyword := range []string{"all", "sameuser", "samerole", "replication"} {
		if t.is(keyword) {
			return item{keyword: keyword, text: keyword}, nil
		}
	}
	if t.is("samegroup") { // its name before 8.1
		return item{keyword: "samerole", text: t.text}, nil
	}
	return pattern(t)
}

func userItem(t token) (item, error) {
	switch {
	case t.is("all"):
		return item{keyword: "all", text: "all"}, nil
	case !t.quoted && strings.HasPrefix(t.text, "+"):
		if t.text == "+" {
			return item{}, wrong("name the role whose members are meant: +role", "a plus sign without a role")
		}
		return item{keyword: "+", text: t.text}, nil
	}
	return pattern(t)
}

// networkOf reads the address of a rule and, where that has no length, the mask
// behind it.
func networkOf(f *fieldsOf) (n network, err error) {
	field := f.next()
	switch {
	case field == nil:
		return n, wrong(ruleForm, "end-of-line before IP address specification")
	case len(field) > 1:
		return n, wrong("Specify one address range per line.", "multiple values specified for host address")
	}
	t := field[0]
	for _, keyword := range []string{"all", "samehost", "samenet"} {
		if t.is(keyword) {
			return network{keyword: keyword}, nil
		}
	}
	text, length, cidr := strings.Cut(t.text, "/")
	if n.address, err = netip.ParseAddr(text); err != nil || n.address.Zone() != "" {
		return n, badAddress(t.text, text, cidr)
	}
	bits := n.address.BitLen()
	if cidr {
		ones, err := strconv.Atoi(length)
		if err != nil || ones < 0 || ones > bits || strings.HasPrefix(length, "+") {
			return n, wrong("the length is 0 to "+strconv.Itoa(bits)+" bits", "invalid CIDR mask in address %q", t.text)
		}
		n.mask = maskOf(ones, bits)
		return n, nil
	}
	mask, err := f.single("netmask specification", "netmask")
	if err != nil {
		return n, err
	}
	m, err := netip.ParseAddr(mask.text)
	if err != nil || m.Zone() != "" {
		return n, wrong("write a length behind the address, as in 10.0.0.0/8, or a mask such as 255.0.0.0", "invalid IP mask %q", mask.text)
	}
	if m.Is4() != n.address.Is4() {
		return n, wrong("both are IPv4 or both IPv6", "IP address and mask do not match")
	}
	n.mask = m.AsSlice()
	return n, nil
}

func badAddress(whole, host string, cidr bool) error {
	if cidr && !strings.ContainsAny(host, ":") && strings.Trim(host, "0123456789.") != "" {
		return wrong("give a name or a network, not both; names are not supported here", "specifying both host name and CIDR mask is invalid: %q", whole)
	}
	if strings.Trim(host, "0123456789.") == "" || strings.Contains(host, ":") {
		return wrong("write it in full, as 10.1.2.3 or 2001:db8::1, without a zone", "invalid IP address %q", host)
	}
	return wrong("give the addresses: a name would be looked up at every login, and whoever answers for it would decide who gets in", "the host name %q cannot stand in a rule here", host)
}

func maskOf(ones, bits int) []byte {
	m := make([]byte, bits/8)
	for i := range ones {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// elsewhere are PostgreSQL's methods that are not spoken here.
var elsewhere = map[string]string{
	"password": "use scram-sha-256: the same password serves, and it never crosses the network",
	"ident":    "use scram-sha-256 or cert: the ident server of a client's host says what the client wants",
	"gss":      "use scram-sha-256 or cert, or connect to the nodes themselves",
	"sspi":     "use scram-sha-256 or cert, or connect to the nodes themselves",
	"pam":      "use scram-sha-256 or cert, or connect to the nodes themselves",
	"bsd":      "use scram-sha-256 or cert, or connect to the nodes themselves",
	"ldap":     "use scram-sha-256 or cert, or connect to the nodes themselves",
	"radius":   "use scram-sha-256 or cert, or connect to the nodes themselves",
	"oauth":    "use scram-sha-256 or cert, or connect to the nodes themselves",
}

const methods = "allowed: trust, reject, scram-sha-256, md5, cert, peer"

func methodOf(word string, kind Kind) (Method, error) {
	if word == "ident" && kind == Local { // as PostgreSQL has it
		return Peer, nil
	}
	m := Method(word)
	switch m {
	case Trust, Reject, SCRAM, MD5:
		return m, nil
	case Peer:
		if kind != Local {
			return "", wrong("it asks the kernel who is at the other end, which only a local line can", "peer authentication is only supported on local sockets")
		}
		return m, nil
	case Cert:
		if kind != HostSSL {
			return "", wrong("write hostssl", "cert authentication is only supported on hostssl connections")
		}
		return m, nil
	}
	if remedy, known := elsewhere[word]; known {
		return "", wrong(remedy, "the proxy does not speak the authentication method %q", word)
	}
	return "", wrong(methods, "invalid authentication method %q", word)
}

// option reads one name=value behind the method.
func (r *Rule) option(word string) error {
	name, value, ok := strings.Cut(word, "=")
	if !ok {
		return wrong("write map=NAME or clientcert=verify-full", "authentication option not in name=value format: %s", word)
	}
	switch name {
	case "map":
		if r.Method != Cert && r.Method != Peer {
			return wrong("a password already names its role", "authentication option \"map\" is only valid for authentication methods peer and cert")
		}
		r.Map = value
		return nil
	case "clientcert":
		return r.clientCert(value)
	case "clientname":
		if r.Kind != HostSSL {
			return wrong("write hostssl", "clientname can only be configured for \"hostssl\" rows")
		}
		if value != "CN" {
			return wrong("only clientname=CN is supported, which is what it is without the option", "invalid value for clientname: %q", value)
		}
		return nil
	}
	return wrong("allowed: map, clientcert, clientname", "unrecognized authentication option name: %q", name)
}

func (r *Rule) clientCert(value string) error {
	if r.Kind != HostSSL {
		return wrong("write hostssl", "clientcert can only be configured for \"hostssl\" rows")
	}
	switch value {
	case "verify-full":
		r.ClientCert = VerifyFull
	case "verify-ca":
		if r.Method == Cert {
			return wrong("leave it away: cert checks the name by itself", "clientcert only accepts \"verify-full\" when using \"cert\" authentication")
		}
		r.ClientCert = VerifyCA
	default:
		return wrong("allowed: verify-ca, verify-full", "invalid value for clientcert: %q", value)
	}
	return nil
}
