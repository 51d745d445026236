package check

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
)

// Register judges the register workload, each key by itself: there must be an
// order of its requests, each between its sending and its answer, in which
// every answer is what one variable that began as 0 would give. What was
// refused may not have happened; what is unknown may happen at any moment
// after it was sent, or never. The values in the end count as one more read.
//
// Every value is written once at most. The check gives up on a key after
// limit, which is a violation of its own kind: an unread history proves
// nothing.
func Register(ops []history.Op, end map[int64]int64, limit time.Duration) (out []Violation) {
	byKey := map[int64][]history.Op{}
	for k := range end {
		byKey[k] = nil
	}
	var last time.Duration
	for _, op := range ops {
		if op.Kind == history.RegRead || op.Kind == history.RegWrite || op.Kind == history.RegCAS {
			byKey[op.Key] = append(byKey[op.Key], op)
			last = max(last, op.Returned)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		v, there := end[key]
		if !there {
			out = append(out, violation(Lost, "register %d is not there", key))
			continue
		}
		all := append(byKey[key], history.Op{Client: "the end", Kind: history.RegRead, Key: key, Value: v, Outcome: history.OK, Invoked: last + 1, Returned: last + 2})
		switch result, told := linearize(all, limit); result {
		case porcupine.Illegal:
			out = append(out, violation(Order, "no order of its %d requests explains register %d: %s", len(all), key, told))
		case porcupine.Unknown:
			out = append(out, violation(Undecided, "register %d with %d requests was not decided within %s", key, len(all), limit))
		}
	}
	return out
}

// model is one variable. Requests are history.Ops, whose answer is in them.
var model = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		now, op := state.(int64), input.(history.Op)
		known := op.Outcome == history.OK
		switch op.Kind {
		case history.RegRead:
			return op.Value == now, now
		case history.RegWrite:
			return true, op.Value
		case history.RegCAS:
			if known && op.Swapped != (op.Old == now) {
				return false, now
			}
			if op.Old == now {
				return true, op.Value
			}
			return true, now
		}
		return false, now
	},
	DescribeOperation: func(input, _ any) string { return describe(input.(history.Op)) },
}

func describe(op history.Op) string {
	switch op.Kind {
	case history.RegWrite:
		return fmt.Sprintf("write %d (%s)", op.Value, op.Outcome)
	case history.RegCAS:
		return fmt.Sprintf("swap %d for %d: %t (%s)", op.Old, op.Value, op.Swapped, op.Outcome)
	}
	return fmt.Sprintf("read %d", op.Value)
}

// linearize asks porcupine about one key, and where there is no order says
// which answer the longest one that it found could not take in.
func linearize(ops []history.Op, limit time.Duration) (porcupine.CheckResult, string) {
	visible := observed(ops)
	clients := map[string]int{}
	var asked []porcupine.Operation
	for _, op := range ops {
		if op.Outcome == history.Failed || op.Outcome == history.Unknown && (op.Kind == history.RegRead || !visible(op)) {
			continue // without effect, or with one that nobody saw: it may come last
		}
		id, known := clients[op.Client]
		if !known {
			id = len(clients)
			clients[op.Client] = id
		}
		ret := int64(op.Returned)
		if op.Outcome == history.Unknown {
			ret = math.MaxInt64
		}
		asked = append(asked, porcupine.Operation{ClientId: id, Input: op, Call: int64(op.Invoked), Return: ret})
	}
	result, info := porcupine.CheckOperationsVerbose(model, asked, limit)
	if result != porcupine.Illegal {
		return result, ""
	}
	return result, firstOutside(asked, info.PartialLinearizationsOperations())
}

// observed says of a request of unknown outcome whether an answer may have
// been what it was because of it: its value was read or swapped for another, or
// a swap failed, which says only that some other value was there. The search
// grows with each that is kept.
func observed(ops []history.Op) func(history.Op) bool {
	seen, refused := map[int64]bool{}, false
	for _, op := range ops {
		switch {
		case op.Kind == history.RegRead && op.Outcome == history.OK:
			seen[op.Value] = true
		case op.Kind == history.RegCAS && op.Outcome != history.Failed:
			seen[op.Old] = true
			refused = refused || op.Outcome == history.OK && !op.Swapped
		}
	}
	return func(op history.Op) bool { return refused || seen[op.Value] }
}

// firstOutside is the earliest answer that the longest order leaves out.
func firstOutside(asked []porcupine.Operation, partial [][][]porcupine.Operation) string {
	var longest []porcupine.Operation
	for _, orders := range partial {
		for _, order := range orders {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	in := map[int64]bool{}
	for _, o := range longest {
		in[o.Call] = true
	}
	var first *porcupine.Operation
	for i, o := range asked {
		if !in[o.Call] && (first == nil || o.Return < first.Return) {
			first = &asked[i]
		}
	}
	if first == nil {
		return "all of them fit only without each other"
	}
	op := first.Input.(history.Op)
	text := fmt.Sprintf("%s does not fit (%s)", describe(op), said(op))
	if len(longest) > 0 {
		before := longest[len(longest)-1].Input.(history.Op)
		text += fmt.Sprintf(" after %s (%s)", describe(before), said(before))
	}
	return text
}
