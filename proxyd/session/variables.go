package session

import (
	"strings"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// tracked are the parameters that every supported server reports and that a
// session may set: they follow a client from server to server.
var tracked = [...]string{
	"client_encoding", "DateStyle", "TimeZone", "IntervalStyle",
	"standard_conforming_strings", "application_name",
}

const (
	varEncoding    = 0
	varConforming  = 4
	varApplication = 5
)

// variables are the values of the tracked parameters, "" where not reported.
type variables [len(tracked)]string

// set records a reported value. It says whether the parameter is tracked.
func (v *variables) set(name, value string) bool {
	for i, n := range tracked {
		if strings.EqualFold(n, name) {
			v[i] = value
			return true
		}
	}
	return false
}

// setFrom makes the statement that gives a server with the values of have the
// values of v, "" when there is nothing to do.
func (v *variables) setFrom(have *variables) string {
	if *v == *have {
		return ""
	}
	var b strings.Builder
	for i := range v {
		if v[i] == have[i] || v[i] == "" && i != varApplication {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		b.WriteString("SET ")
		b.WriteString(tracked[i])
		b.WriteByte('=')
		b.WriteString(quoteLiteral(v[i]))
	}
	return b.String()
}

// quoteLiteral quotes as PostgreSQL's quote_literal() does, so that it means
// the same whatever standard_conforming_strings is.
func quoteLiteral(s string) string {
	q := strings.ReplaceAll(s, "'", "''")
	if strings.Contains(q, `\`) {
		return ` E'` + strings.ReplaceAll(q, `\`, `\\`) + `'`
	}
	return "'" + q + "'"
}

// reports are the ParameterStatus of a server, in the order of its login.
type reports []wire.Param

// set records a reported value.
func (r *reports) set(name, value string) {
	for i := range *r {
		if (*r)[i].Name == name {
			(*r)[i].Value = value
			return
		}
	}
	if len(*r) < maxReports {
		*r = append(*r, wire.Param{Name: name, Value: value})
	}
}

const maxReports = 100

// cleanName does to an application_name what the server does: what is not
// printable ASCII becomes a question mark, and 63 bytes are kept.
func cleanName(s string) string {
	b := []byte(s)
	if len(b) > 63 {
		b = b[:63]
	}
	for i, c := range b {
		if c < 32 || c > 126 {
			b[i] = '?'
		}
	}
	return string(b)
}
