package decide

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// slotMissing keeps each standby's replication slot where it belongs: on the
// primary, in use, and nowhere else.
func slotMissing(f *facts) (Decision, bool) {
	if !f.Policy.Slots || !f.primary.Up() || f.primary.Role != cluster.RolePrimary {
		return Decision{}, false
	}
	return f.first(f.others, func(n cluster.NodeFacts) (Decision, bool) {
		spec, ok := f.Policy.Node(n.ID)
		if !ok || !spec.FailoverAllowed || !n.Up() || f.Record.Members[n.ID].Fenced || !f.inLine(n) {
			return Decision{}, false
		}
		why := f.slotFault(n)
		return Decision{Action: cluster.GiveSlot, Node: n.ID, Reason: why}, why != "" && toldToFollow(f, n) == f.primary.ID
	})
}

// slotFault says what is wrong with a standby's slot; "" where nothing is.
func (f *facts) slotFault(n cluster.NodeFacts) string {
	want := cluster.SlotName(n.ID)
	i := slices.IndexFunc(f.primary.Slots, func(s cluster.Slot) bool { return s.Name == want })
	switch {
	case n.SlotName == "":
		return fmt.Sprintf("%s follows %s without a replication slot", n.ID, f.primary.ID)
	case n.SlotName != want:
		return fmt.Sprintf("%s follows %s with the replication slot %q: it gets one that moves with the primary", n.ID, f.primary.ID, n.SlotName)
	case i < 0:
		return fmt.Sprintf("%s has no replication slot %s, which %s asks for", f.primary.ID, want, n.ID)
	case f.primary.Slots[i].WALStatus == "lost":
		return fmt.Sprintf("the replication slot %s on %s is invalidated: the WAL that it held is gone", want, f.primary.ID)
	}
	if left := f.leftBehind(n); len(left) > 0 {
		return fmt.Sprintf("%s is a standby and still keeps the replication slot %s, which holds WAL for nobody", n.ID, strings.Join(left, ", "))
	}
	return ""
}

// leftBehind are the slots of ours on a standby that nobody uses: those whose
// owner is known to follow the primary. A cascaded standby that is away keeps
// its own.
func (f *facts) leftBehind(n cluster.NodeFacts) (names []string) {
	for _, s := range n.Slots {
		for _, owner := range f.Policy.Nodes {
			if s.Name == cluster.SlotName(owner.ID) && !s.Active && (owner.ID == f.primary.ID || toldToFollow(f, f.Snapshot.Node(owner.ID)) == f.primary.ID) {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// LeftBehind are the slots that a standby keeps for nobody.
func LeftBehind(in Input, n cluster.NodeID) []string {
	mem := in.Memory.Clone()
	return gather(in, &mem).leftBehind(in.Snapshot.Node(n))
}
