package admin

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// kind is a column's type; the types are those that PgBouncer gives it.
type kind uint8

const (
	text kind = iota
	int4
	int8
	numeric // of whole numbers that are not negative
)

// typeOf is a kind's row of pg_type.
var typeOf = [...]struct {
	oid  uint32
	size int16
}{text: {25, -1}, int4: {23, 4}, int8: {20, 8}, numeric: {1700, -1}}

// column is one column of an answer.
type column struct {
	name string
	kind kind
}

// texts and the others make columns of one type.
func texts(names ...string) []column    { return columnsOf(text, names) }
func int4s(names ...string) []column    { return columnsOf(int4, names) }
func int8s(names ...string) []column    { return columnsOf(int8, names) }
func numerics(names ...string) []column { return columnsOf(numeric, names) }

func columnsOf(k kind, names []string) []column {
	out := make([]column, 0, len(names))
	for _, n := range names {
		out = append(out, column{n, k})
	}
	return out
}

// row is one row: a string, a whole number, or nil for NULL, for each column.
type row []any

// Formats of a value, as Bind asks for them.
const (
	asText   = 0
	asBinary = 1
)

// formatOf is the format of column i: none given is text, one is for all.
func formatOf(formats []int16, i int) int16 {
	switch {
	case len(formats) == 1:
		return formats[0]
	case i < len(formats):
		return formats[i]
	}
	return asText
}

func appendRowDescription(dst []byte, columns []column, formats []int16) []byte {
	dst, at := wire.Begin(dst, wire.RowDescription)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(columns)))
	for i, c := range columns {
		dst = append(append(dst, c.name...), 0)
		dst = append(dst, 0, 0, 0, 0, 0, 0) // of no table
		dst = binary.BigEndian.AppendUint32(dst, typeOf[c.kind].oid)
		dst = binary.BigEndian.AppendUint16(dst, uint16(typeOf[c.kind].size))
		dst = append(dst, 0xff, 0xff, 0xff, 0xff) // no type modifier
		dst = binary.BigEndian.AppendUint16(dst, uint16(formatOf(formats, i)))
	}
	return wire.End(dst, at)
}

func appendDataRow(dst []byte, columns []column, formats []int16, r row) []byte {
	dst, at := wire.Begin(dst, wire.DataRow)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(columns)))
	for i, c := range columns {
		if r[i] == nil {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		lengthAt := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		if formatOf(formats, i) == asBinary {
			dst = appendBinary(dst, c.kind, r[i])
		} else {
			dst = append(dst, textOf(r[i])...)
		}
		binary.BigEndian.PutUint32(dst[lengthAt:], uint32(len(dst)-lengthAt-4))
	}
	return wire.End(dst, at)
}

// textOf writes a value as text; a time as PgBouncer does, in UTC.
func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05") + " UTC"
	}
	return fmt.Sprint(v)
}

func appendBinary(dst []byte, k kind, v any) []byte {
	switch k {
	case int4:
		return binary.BigEndian.AppendUint32(dst, uint32(whole(v)))
	case int8:
		return binary.BigEndian.AppendUint64(dst, whole(v))
	case numeric:
		return appendNumeric(dst, whole(v))
	}
	return append(dst, textOf(v)...)
}

// whole is the value of a column of numbers.
func whole(v any) uint64 {
	switch v := v.(type) {
	case int:
		return uint64(v)
	case int64:
		return uint64(v)
	case uint64:
		return v
	}
	n, _ := strconv.ParseUint(fmt.Sprint(v), 10, 64) // a column has one type of values: its tests hold that
	return n
}

// appendNumeric writes numeric's binary form (numeric_send in PostgreSQL's
// numeric.c): the count of digits to the base of 10000, the weight of the
// first, sign, scale, digits.
func appendNumeric(dst []byte, n uint64) []byte {
	var digits []uint16
	for ; n > 0; n /= 10000 {
		digits = append(digits, uint16(n%10000))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(digits)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(max(0, len(digits)-1)))
	dst = append(dst, 0, 0, 0, 0)
	for i := len(digits) - 1; i >= 0; i-- {
		dst = binary.BigEndian.AppendUint16(dst, digits[i])
	}
	return dst
}
