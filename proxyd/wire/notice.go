package wire

import (
	"errors"
	"fmt"
)

// SQLSTATEs that are sent or understood here, by the names of PostgreSQL's
// errcodes.txt.
const (
	CodeConnectionDoesNotExist  = "08003"
	CodeTransactionUnknown      = "08007"
	CodeProtocolViolation       = "08P01"
	CodeFeatureNotSupported     = "0A000"
	CodeInFailedTransaction     = "25P02"
	CodeIdleInTransaction       = "25P03"
	CodeTransactionTimeout      = "25P04"
	CodeInvalidAuthorization    = "28000"
	CodeInvalidPassword         = "28P01"
	CodeInvalidStatementName    = "26000"
	CodeUndefinedDatabase       = "3D000"
	CodeInvalidParameter        = "22023"
	CodeSerializationFailure    = "40001"
	CodeDuplicateStatement      = "42P05"
	CodeTooManyConnections      = "53300"
	CodeProgramLimitExceeded    = "54000"
	CodeQueryCanceled           = "57014"
	CodeAdminShutdown           = "57P01"
	CodeCrashShutdown           = "57P02"
	CodeCannotConnectNow        = "57P03"
	CodeIdleSession             = "57P05"
	CodeConfigurationLimit      = "53400"
	CodeInternalError           = "XX000"
	CodeConfigFile              = "F0000"
	CodeInsufficientPrivilege   = "42501"
	CodeSyntaxError             = "42601"
	CodeUndefinedObject         = "42704"
	CodeInvalidCursorName       = "34000"
	CodeInvalidParameterValue   = "22023"
	CodeNotInPrerequisiteState  = "55000"
	CodeConnectionFailure       = "08006"
	CodeUnableToConnect         = "08001"
	CodeInvalidTransactionState = "25000"
)

// Severities.
const (
	SevError   = "ERROR"
	SevFatal   = "FATAL"
	SevPanic   = "PANIC"
	SevWarning = "WARNING"
	SevNotice  = "NOTICE"
)

// Notice is an ErrorResponse or a NoticeResponse. As an error it is what a
// server said.
type Notice struct {
	Severity string
	Code     string
	Message  string
	Detail   string
	Hint     string
}

func (n *Notice) Error() string {
	if n.Detail != "" {
		return fmt.Sprintf("%s: %s (SQLSTATE %s; %s)", n.Severity, n.Message, n.Code, n.Detail)
	}
	return fmt.Sprintf("%s: %s (SQLSTATE %s)", n.Severity, n.Message, n.Code)
}

// Fatal says whether the sender closes the connection after it.
func (n *Notice) Fatal() bool { return n.Severity == SevFatal || n.Severity == SevPanic }

// Errorf makes an error that leaves the session alive.
func Errorf(code, format string, args ...any) *Notice {
	return &Notice{Severity: SevError, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Fatalf makes an error that ends the session.
func Fatalf(code, format string, args ...any) *Notice {
	return &Notice{Severity: SevFatal, Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithDetail adds the DETAIL line.
func (n *Notice) WithDetail(format string, args ...any) *Notice {
	n.Detail = fmt.Sprintf(format, args...)
	return n
}

// WithHint adds the HINT line.
func (n *Notice) WithHint(format string, args ...any) *Notice {
	n.Hint = fmt.Sprintf(format, args...)
	return n
}

// AppendError appends the notice as an ErrorResponse.
func AppendError(dst []byte, n *Notice) []byte { return appendFields(dst, ErrorResponse, n) }

// AppendNotice appends it as a NoticeResponse.
func AppendNotice(dst []byte, n *Notice) []byte { return appendFields(dst, NoticeResponse, n) }

func appendFields(dst []byte, typ byte, n *Notice) []byte {
	dst, at := Begin(dst, typ)
	field := func(k byte, v string) {
		if v != "" {
			dst = append(dst, k)
			dst = append(dst, v...)
			dst = append(dst, 0)
		}
	}
	field('S', n.Severity)
	field('V', n.Severity)
	field('C', n.Code)
	field('M', n.Message)
	field('D', n.Detail)
	field('H', n.Hint)
	return End(append(dst, 0), at)
}

// ParseNotice reads the fields of an ErrorResponse or NoticeResponse. A field
// that is missing stays empty; a body that was cut short gives what it has,
// because the code at its head is what decides.
func ParseNotice(body []byte) *Notice {
	n := &Notice{}
	for len(body) > 0 && body[0] != 0 {
		k := body[0]
		v, rest, ok := CString(body[1:])
		if !ok {
			break
		}
		switch k {
		case 'S':
			if n.Severity == "" {
				n.Severity = string(v)
			}
		case 'V': // never translated; PostgreSQL 9.6 and newer
			n.Severity = string(v)
		case 'C':
			n.Code = string(v)
		case 'M':
			n.Message = string(v)
		case 'D':
			n.Detail = string(v)
		case 'H':
			n.Hint = string(v)
		}
		body = rest
	}
	if n.Code == "" {
		n.Code = CodeInternalError
	}
	return n
}

// Code finds the SQLSTATE in an error, or "".
func Code(err error) string {
	var n *Notice
	if errors.As(err, &n) {
		return n.Code
	}
	return ""
}
