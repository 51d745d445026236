package check

import (
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

// Reads judges what the readers saw of each other's numbers, which grow with
// each write of one writer, and whether they were answered at all:
//
//   - a connection sees what it has written itself, as soon as that is
//     acknowledged, wherever its read runs;
//   - everybody sees what was acknowledged more than limit before the read was
//     sent, 0 for no limit;
//   - within one transaction no number goes back;
//   - what was seen is there in the end, and so comes from no server whose
//     history is not the cluster's. A primary that is shut down gives up its
//     waits for the standby and for some milliseconds shows what it may lose
//     (PostgreSQL's SyncRepWaitForLSN), to the reads that it still answers: it
//     is excused in a read that was sent before the write's client was told;
//   - a read by itself is answered, or held to its limit, or two servers were
//     lost under it without a word, or its connection ends with the proxy.
//
// What is not promised is not judged: from one read to the next of a client the
// others' numbers may go back.
func Reads(ops []history.Op, there []int64, limit time.Duration) (out []Violation) {
	holds := map[int64]bool{}
	for _, n := range there {
		holds[n] = true
	}
	acks, given := acknowledged(ops), givenUp(ops)
	for _, op := range ops {
		if op.Kind != history.SeenRead && op.Kind != history.SeenTwice {
			continue
		}
		if op.Outcome != history.OK {
			if op.Kind == history.SeenRead && !excused[op.Code] {
				out = append(out, violation(ReadFailed, "%s: %s", said(op), op.Error))
			}
			continue
		}
		if own := acks.latest(op.Key, op.Invoked, op.Conn); seenOf(op, op.Key) < own {
			out = append(out, violation(OwnWrite, "%d was acknowledged to the same connection, and %d is seen: %s", own, seenOf(op, op.Key), said(op)))
		}
		for writer := range op.Seen {
			if limit == 0 {
				break
			}
			if old := acks.latest(int64(writer), op.Invoked-limit, 0); op.Seen[writer] < old {
				out = append(out, violation(Stale, "%d of writer %d was acknowledged more than %s before, and %d is seen: %s", old, writer, limit, op.Seen[writer], said(op)))
				break
			}
		}
		for i := range op.Again {
			if i < len(op.Seen) && op.Again[i] < op.Seen[i] {
				out = append(out, violation(Backwards, "%v was seen, and then %v: %s", op.Seen, op.Again, said(op)))
				break
			}
		}
		for _, n := range slices.Concat(op.Seen, op.Again) {
			if !holds[n] && op.Invoked >= given[n] {
				out = append(out, violation(Phantom, "%d was seen, and is not there in the end: %s", n, said(op)))
				break
			}
		}
	}
	return out
}

// excused are the ends of a read that are no fault of whoever routes it: it was
// held to the limit, it may be what crashed two servers, or there was no proxy
// to answer it.
var excused = map[string]bool{"57P03": true, "57P02": true, history.CodeConnect: true, history.CodeConnection: true}

// seenOf is the number of a writer that a read has seen.
func seenOf(op history.Op, writer int64) int64 {
	if writer < 0 || writer >= int64(len(op.Seen)) {
		return -1
	}
	return op.Seen[writer]
}

// acked are each writer's acknowledged numbers, in the order of their answers.
type acked map[int64][]history.Op

func acknowledged(ops []history.Op) acked {
	out := acked{}
	for _, op := range ops {
		if op.Kind == history.SeenWrite && op.Outcome == history.OK {
			out[op.Key] = append(out[op.Key], op)
		}
	}
	return out
}

// givenUp are the numbers of which it was not known whether they were written,
// and when their clients were told that.
func givenUp(ops []history.Op) map[int64]time.Duration {
	out := map[int64]time.Duration{}
	for _, op := range ops {
		if op.Kind == history.SeenWrite && op.Outcome == history.Unknown {
			out[op.Value] = op.Returned
		}
	}
	return out
}

// latest is the last number of a writer that was acknowledged before a moment,
// to one of its connections or, with 0, to any; 0 where there is none.
func (a acked) latest(writer int64, before time.Duration, conn int) int64 {
	for _, op := range slices.Backward(a[writer]) {
		if op.Returned < before && (conn == 0 || op.Conn == conn) {
			return op.Value
		}
	}
	return 0
}

// Landed counts the reads by the port that served them.
func Landed(ops []history.Op) map[int]int {
	out := map[int]int{}
	for _, op := range ops {
		if (op.Kind == history.SeenRead || op.Kind == history.SeenTwice) && op.Outcome == history.OK {
			out[op.Port]++
		}
	}
	return out
}
