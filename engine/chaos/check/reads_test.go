package check

import (
	"testing"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

func wrote(writer, n int64, conn int) history.Op {
	return history.Op{Client: "seen", Kind: history.SeenWrite, Key: writer, Value: n, Conn: conn, Outcome: history.OK}
}

func saw(conn int, seen ...int64) history.Op {
	return history.Op{Client: "seen", Kind: history.SeenRead, Key: 1, Conn: conn, Seen: seen, Outcome: history.OK}
}

func failing(op history.Op, code string) history.Op {
	op.Outcome, op.Code, op.Seen = history.Failed, code, nil
	return op
}

func unknown(op history.Op) history.Op {
	op.Outcome = history.Unknown
	return op
}

// TestReads: writer 0 only writes, reader 1 reads and writes.
func TestReads(t *testing.T) {
	twice := func(first, then []int64) history.Op {
		op := saw(1, first...)
		op.Kind, op.Again = history.SeenTwice, then
		return op
	}
	for _, c := range []struct {
		why  string
		ops  []history.Op
		want string
	}{
		{"a read behind its own write", []history.Op{at(0, 1*s, wrote(1, 5, 1)), at(2*s, 3*s, saw(1, 0, 5))}, ""},
		{"a read that misses it", []history.Op{at(0, 1*s, wrote(1, 5, 1)), at(2*s, 3*s, saw(1, 0, 0))}, OwnWrite},
		{"what another connection wrote is another's", []history.Op{at(0, 1*s, wrote(1, 5, 1)), at(2*s, 3*s, saw(2, 0, 0))}, ""},
		{"sent before the write was answered", []history.Op{at(0, 3*s, wrote(1, 5, 1)), at(2*s, 4*s, saw(1, 0, 0))}, ""},
		{"within the limit of lag", []history.Op{at(0, 1*s, wrote(0, 6, 1)), at(3*s, 4*s, saw(1, 0, 0))}, ""},
		{"older than that", []history.Op{at(0, 1*s, wrote(0, 6, 1)), at(7*s, 8*s, saw(1, 0, 0))}, Stale},
		{"a newer one was not answered long ago", []history.Op{at(0, 1*s, wrote(0, 6, 1)), at(6*s, 7*s, wrote(0, 7, 1)), at(8*s, 9*s, saw(1, 6, 0))}, ""},
		{"forwards in a transaction", []history.Op{at(0, 1*s, twice([]int64{0, 0}, []int64{6, 0}))}, ""},
		{"backwards in a transaction", []history.Op{at(0, 1*s, twice([]int64{6, 0}, []int64{0, 0}))}, Backwards},
		{"backwards from one read to the next", []history.Op{at(0, 1*s, saw(1, 6, 0)), at(2*s, 3*s, saw(1, 0, 0))}, ""},
		{"what is not there in the end", []history.Op{at(0, 1*s, saw(1, 9, 0))}, Phantom},
		{"in doubt while it was read", []history.Op{at(0, 3*s, unknown(wrote(0, 9, 1))), at(2*s, 4*s, saw(1, 9, 0))}, ""},
		{"in doubt, and read after that was told", []history.Op{at(0, 3*s, unknown(wrote(0, 9, 1))), at(3*s, 4*s, saw(1, 9, 0))}, Phantom},
		{"held to the limit", []history.Op{at(0, 1*s, failing(saw(1), "57P03"))}, ""},
		{"two servers were lost under it", []history.Op{at(0, 1*s, failing(saw(1), "57P02"))}, ""},
		{"told of a server's end", []history.Op{at(0, 1*s, failing(saw(1), "57P01"))}, ReadFailed},
		{"a transaction may be told of it", []history.Op{at(0, 1*s, failing(twice(nil, nil), "40001"))}, ""},
	} {
		t.Run(c.why, func(t *testing.T) { expect(t, Reads(c.ops, []int64{0, 5, 6, 7}, 5*s), c.want) })
	}
}
