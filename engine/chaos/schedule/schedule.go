// Package schedule draws from a seed which faults a chaos run makes, and when.
// A schedule is data: the same seed and the same offer of verbs give the same
// one.
//
// It speaks of roles, because nobody knows beforehand which node will be
// primary. It must never know a lab, nor how the faults are made.
package schedule

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

// Roles stand for nodes in a fault's Node and Peer. They are bound when their
// gesture begins, and then stay: the primary that was frozen is the one that is
// woken, whatever it is by then.
const (
	Primary = "primary"
	Standby = "standby" // of several, the first
	Other   = "other"   // of several, the second; the first where there is one
)

// Switchover is the one verb that is no fault: a person hands over to Node.
const Switchover fault.Verb = "switchover"

// Step is one fault, or the end of one.
type Step struct {
	After time.Duration // the gesture's beginning
	Undo  bool
	Fault fault.Fault
}

func (s Step) String() string {
	if s.Undo {
		return "undo " + s.Fault.String()
	}
	return s.Fault.String()
}

// Gesture is what one hand does: steps that belong together.
type Gesture struct {
	Name  string
	At    time.Duration // the run's beginning
	Steps []Step
}

// Schedule is what one run makes.
type Schedule struct {
	Seed     uint64
	Gestures []Gesture
}

// Names are the gestures in their order, with their moments.
func (s Schedule) Names() string {
	words := make([]string, len(s.Gestures))
	for i, g := range s.Gestures {
		words[i] = fmt.Sprintf("%s@%.1f", g.Name, g.At.Seconds())
	}
	return strings.Join(words, " ")
}

const (
	begin  = 500 * time.Millisecond // the first fault: the clients are at work by then
	latest = 9 * time.Second        // begins no gesture after it
	clear  = 3 * time.Second        // on both sides of a gesture that is made alone
)

// Make draws a schedule for a cluster of nodes, from the verbs that a lab
// offers. Each schedule has a swarm of its own: a few kinds of gesture and a
// spacing, so that many runs reach what an even mixture of everything would
// not (Groce et al., Swarm Testing, 2012). The first gesture goes round all
// kinds as the seed counts, so that some consecutive seeds miss none.
func Make(seed uint64, nodes int, offered []fault.Verb) (Schedule, error) {
	can := possible(nodes, offered)
	if len(can) == 0 {
		return Schedule{}, fmt.Errorf("make a schedule: of the verbs %v no gesture can be made on %d nodes", offered, nodes)
	}
	r := rand.New(rand.NewPCG(seed, uint64(nodes)))
	swarm := []kind{can[seed%uint64(len(can))]}
	for range 1 + r.IntN(4) {
		swarm = append(swarm, can[r.IntN(len(can))])
	}
	spacing := []time.Duration{300, 1000, 2000, 3500}[r.IntN(4)] * time.Millisecond
	s := Schedule{Seed: seed}
	at, quiet := begin, time.Duration(0)
	for i := range 2 + r.IntN(5) {
		k := swarm[0]
		if i > 0 {
			k = swarm[r.IntN(len(swarm))]
		}
		if k.alone && i > 0 {
			at = max(at, end(s)+clear)
		}
		at = max(at, quiet)
		if at > latest {
			break
		}
		steps := k.steps(hand{r})
		s.Gestures = append(s.Gestures, Gesture{Name: k.name, At: at, Steps: steps})
		if k.alone {
			quiet = end(s) + clear
		}
		if r.IntN(5) > 0 { // otherwise two at once
			at += spacing/2 + time.Duration(r.Int64N(int64(spacing)))
		}
	}
	return s, nil
}

// end is when the last step of all is made.
func end(s Schedule) (last time.Duration) {
	for _, g := range s.Gestures {
		for _, step := range g.Steps {
			last = max(last, g.At+step.After)
		}
	}
	return last
}

// possible are the kinds whose verbs are all offered.
func possible(nodes int, offered []fault.Verb) (out []kind) {
	has := map[fault.Verb]bool{Switchover: true}
	for _, v := range offered {
		has[v] = true
	}
next:
	for _, k := range kinds {
		if nodes < k.nodes {
			continue
		}
		for _, v := range k.needs {
			if !has[v] {
				continue next
			}
		}
		out = append(out, k)
	}
	return out
}
