package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Fact is one of the values that the rules speak of, in words.
type Fact struct{ Name, Value string }

// Explain says the facts that the table was applied to, so that a person can
// follow why a rule held. A fact that says nothing at the moment is left out.
func Explain(in Input) []Fact {
	mem := in.Memory.Clone()
	f := gather(in, &mem)
	var out []Fact
	say := func(name, value string) {
		if value != "" {
			out = append(out, Fact{name, value})
		}
	}
	say("primary", f.primaryInWords())
	say("path", f.alive)
	say("other writers", names(f.writable, func(n cluster.NodeFacts) string { return fmt.Sprintf("%s on timeline %d", n.ID, n.Timeline) }))
	if f.known {
		say("commits wait for", cmp.Or(FormatSyncNames(running(f)), "nobody"))
	}
	lost := func(l lostStandby) string { return fmt.Sprintf("%s (%s)", l.ID, l.why) }
	say("lost standbys", names(f.absent, lost))
	say("suspected standbys", names(f.waiting, lost))
	say("candidates", names(f.candidates, func(n cluster.NodeFacts) string { return fmt.Sprintf("%s at %s", n.ID, n.Position()) }))
	if len(f.silent) > 0 {
		say("silent", MayHoldMore(f.silent))
	}
	say("gate", map[bool]string{true: "open", false: "closed"}[in.GateOpen])
	for _, t := range tried(in.Memory) {
		say("failed attempts", t)
	}
	return out
}

func (f *facts) primaryInWords() string {
	switch {
	case f.Record.Primary == "":
		return "none is recorded"
	case !f.known:
		return fmt.Sprintf("%s, which is not configured", f.Record.Primary)
	}
	grade := map[loss]string{present: "answers", suspected: "suspected", restarting: "restarting", lost: "lost", proven: "lost, proven"}[f.lost]
	if f.lostWhy != "" {
		grade += ": " + f.lostWhy
	}
	return fmt.Sprintf("%s %s", f.primary.ID, grade)
}

func names[T any](list []T, word func(T) string) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = word(v)
	}
	return strings.Join(out, ", ")
}

// tried are the attempts that failed, in an order that does not change.
func tried(m Memory) []string {
	var out []string
	for a, f := range m.Attempts {
		out = append(out, fmt.Sprintf("%s %s: %d times", a.Action, a.Node, f.Count))
	}
	slices.Sort(out)
	return out
}

// Quorum is what a promotion would need: of N members of the sync set any K
// acknowledge, so N-K+1 that stopped receiving include one that has every
// acknowledged commit.
type Quorum struct {
	N, K   int
	Needed int              // N-K+1; 0 where commits wait for nobody, so that no promise proves anything
	Given  int              // recorded for the next term
	Able   int              // given, or could be given now because the standby answers
	Silent []cluster.NodeID // members that could not give theirs
}

// QuorumOf counts promises as a promotion does.
func QuorumOf(in Input) Quorum {
	set := in.Record.SyncSet
	q := Quorum{N: len(set.Members), K: set.K}
	if q.N == 0 {
		return q
	}
	q.Needed = q.N - q.K + 1
	for _, id := range set.Members {
		n := in.Snapshot.Node(id)
		switch {
		case PromiseCounts(in.Record, id):
			q.Given++
			q.Able++
		case n.Up() && n.Role == cluster.RoleStandby:
			q.Able++
		default:
			q.Silent = append(q.Silent, id)
		}
	}
	return q
}

// PromiseCounts says whether a node's promise would be counted by the next
// promotion: it is for the term that would begin, of a member of the sync set.
func PromiseCounts(r cluster.Record, id cluster.NodeID) bool {
	return r.Members[id].Promised == r.Term+1 && slices.Contains(r.SyncSet.Members, id)
}

// Candidates are the nodes that could be promoted without a loss, the best
// first, and for every other node but the primary why it could not be.
func Candidates(in Input) (order []cluster.NodeID, not map[cluster.NodeID]string) {
	mem := in.Memory.Clone()
	f := gather(in, &mem)
	not = map[cluster.NodeID]string{}
	enough := len(f.silent) == 0
	for _, n := range f.others {
		isCandidate := slices.ContainsFunc(f.candidates, func(c cluster.NodeFacts) bool { return c.ID == n.ID })
		if !f.known {
			not[n.ID] = "no primary is recorded"
		} else if !isCandidate || !enough {
			not[n.ID] = whyNot(f, n)
		}
	}
	if enough {
		for _, c := range f.candidates {
			order = append(order, c.ID)
		}
	}
	return order, not
}
