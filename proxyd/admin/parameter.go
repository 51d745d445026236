package admin

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// parameters that drivers set or ask for in every session. They have these
// values and keep them.
var parameters = map[string]string{
	"application_name": "", "client_encoding": "UTF8", "client_min_messages": "notice", "datestyle": "ISO, MDY",
	"default_transaction_isolation": "read committed", "default_transaction_read_only": "off", "extra_float_digits": "1",
	"idle_in_transaction_session_timeout": "0", "intervalstyle": "postgres", "lock_timeout": "0", "search_path": "",
	"server_encoding": "UTF8", "server_version_num": "130000", "standard_conforming_strings": "on", "timezone": "UTC",
	"transaction isolation level": "read committed", "transaction_isolation": "read committed", "transaction_read_only": "off",
}

const timeoutName = "statement_timeout"

func showParameter(name string) *statement {
	key := strings.ToLower(name)
	value, known := parameters[key]
	if !known && key != timeoutName {
		return nil
	}
	return &statement{needs: looker, columns: texts(key), run: func(_ context.Context, s *session) (*answer, error) {
		v := value
		if key == timeoutName {
			v = strconv.FormatInt(s.limit.Milliseconds(), 10) + "ms"
		}
		return &answer{tag: "SHOW", rows: []row{{v}}}, nil
	}}
}

// ofEverySession are statements that drivers send by themselves: blocks, which
// mean nothing here, settings, and a question whether anybody is there. nil is
// another statement.
func ofEverySession(w words, first string) *statement {
	block := func(tag string, to byte) *statement {
		return &statement{needs: looker, inFailed: to == wire.TxIdle, run: func(_ context.Context, s *session) (*answer, error) {
			if tag == "COMMIT" && s.tx == wire.TxFailed {
				tag = "ROLLBACK"
			}
			s.tx = to
			return &answer{tag: tag}, nil
		}}
	}
	switch first {
	case "BEGIN":
		return block("BEGIN", wire.TxOpen)
	case "START":
		return block("START TRANSACTION", wire.TxOpen)
	case "COMMIT", "END":
		return block("COMMIT", wire.TxIdle)
	case "ROLLBACK", "ABORT":
		return block("ROLLBACK", wire.TxIdle)
	case "SET":
		return &statement{needs: looker, run: func(_ context.Context, s *session) (*answer, error) { return &answer{tag: "SET"}, s.set(w) }}
	case "RESET", "DISCARD", "DEALLOCATE":
		return &statement{needs: looker, run: func(_ context.Context, s *session) (*answer, error) {
			return &answer{tag: s.forget(w, first)}, nil
		}}
	case "SELECT":
		if n, err := strconv.ParseInt(w.rest(1), 10, 32); err == nil {
			return &statement{needs: looker, columns: int4s("?column?"), run: func(context.Context, *session) (*answer, error) {
				return &answer{tag: "SELECT 1", rows: []row{{n}}}, nil
			}}
		}
	}
	return nil
}

// forget does RESET, DISCARD and DEALLOCATE, and gives the tag.
func (s *session) forget(w words, first string) (tag string) {
	switch {
	case first == "RESET":
		s.limit = s.limit0
	case first == "DISCARD":
		s.limit = s.limit0
		clear(s.stmts)
		return first + " " + strings.ToUpper(w.rest(1))
	case w.is(1, "ALL") || w.is(2, "ALL"): // DEALLOCATE PREPARE ALL
		clear(s.stmts)
		return "DEALLOCATE ALL"
	default:
		delete(s.stmts, w.text[len(w.text)-1])
	}
	return first
}

// set does SET name = value: statement_timeout is followed, what every driver
// sets is passed over, and a setting of the proxy is in its file.
func (s *session) set(w words) error {
	i := 1
	if w.is(i, "SESSION") || w.is(i, "LOCAL") {
		i++
	}
	if i >= len(w.text) {
		return wire.Errorf(wire.CodeSyntaxError, "SET needs a name and a value")
	}
	name := strings.ToLower(w.text[i])
	if name == "time" || name == "transaction" || name == "characteristics" || name == "names" {
		return nil // SET TIME ZONE, SET TRANSACTION, SET SESSION CHARACTERISTICS, SET NAMES
	}
	i++
	if w.is(i, "=") || w.is(i, "TO") {
		i++
	}
	if name == timeoutName {
		if w.is(i, "DEFAULT") {
			s.limit = s.limit0
			return nil
		}
		limit, ok := parseTimeout(w.rest(i))
		if !ok {
			return wire.Errorf(wire.CodeInvalidParameterValue, "invalid value for parameter \"%s\": \"%s\"", name, w.rest(i)).
				WithHint("Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\".")
		}
		s.limit = limit
		return nil
	}
	if _, known := parameters[name]; known {
		return nil
	}
	return wire.Errorf(wire.CodeFeatureNotSupported, "SET %s is not done: settings of the proxy are in its file", name).
		WithHint("Change the file and say RELOAD; SHOW CONFIG lists the keys, and which a reload changes.")
}

var timeUnits = map[string]time.Duration{
	"us": time.Microsecond, "": time.Millisecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// parseTimeout reads a time as PostgreSQL does: a whole number of
// milliseconds, or of the unit behind it.
func parseTimeout(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	unit, ok := timeUnits[strings.TrimSpace(text[len(number):])]
	n, err := strconv.ParseInt(number, 10, 32)
	if !ok || err != nil || n < 0 {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// startTimeout is the statement_timeout of the startup packet, where it is a
// parameter of its own or stands in options, as PGOPTIONS has it.
func startTimeout(params map[string]string) time.Duration {
	found := params[timeoutName]
	for _, word := range strings.Fields(params["options"]) {
		for _, prefix := range []string{"-c", "--"} {
			if v, ok := strings.CutPrefix(strings.TrimPrefix(word, prefix), timeoutName+"="); ok {
				found = v
			}
		}
	}
	d, _ := parseTimeout(found)
	return d
}
