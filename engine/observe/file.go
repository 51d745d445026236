package observe

import (
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// Answered is what is known of a node after a look that was answered with saw,
// where was was known before. What is said counts as of when it was asked,
// saw.LastOK.
func Answered(was, saw cluster.NodeFacts) cluster.NodeFacts {
	saw.ID, saw.Host = was.ID, was.Host
	saw.Reach, saw.ReachSince = cluster.ReachOK, was.ReachSince
	if was.Reach != cluster.ReachOK {
		saw.ReachSince = saw.LastOK
	}
	saw.Failures, saw.LastError = 0, ""
	return saw
}

// Failed is what is known of a node after an attempt without facts that began
// at began. Failures are counted a period apart, so that looking often under
// suspicion does not use up the retries: counted is when the last failure that
// was counted began, and comes back as it is to be given next time.
func Failed(was cluster.NodeFacts, reach cluster.Reach, began time.Time, why string, counted time.Time, period time.Duration) (cluster.NodeFacts, time.Time) {
	f := was
	first := was.Failures == 0 // it answered or spoke, or was never asked
	switch {
	case first:
		f.Failures, counted = 1, began
	case began.Sub(counted) >= period || began.Before(counted): // the latter: the clock was set back
		f.Failures++
		counted = began
	}
	// A server that speaks after a silence voids what was known of its process
	// before.
	if first || turnedAway(reach) && !turnedAway(was.Reach) {
		f.ReachSince = began
	}
	f.Reach, f.LastTry, f.LastError = reach, began, why
	return f, counted
}

// Spoke is what is known of a node that has given a sign of life that is no
// answer, such as a part of a login, while it counted as silent: the silence is
// over, and what may follow is another one.
func Spoke(was cluster.NodeFacts) cluster.NodeFacts {
	if was.Reach == cluster.ReachTimeout {
		was.Failures = 0
	}
	return was
}

// turnedAway: the server spoke, if only to send us away, so it is alive.
func turnedAway(r cluster.Reach) bool {
	return r == cluster.ReachStarting || r == cluster.ReachRejected
}

// HostSaid is what is known of a node after its machine was asked at began,
// where why is empty if it answered. What was asked last counts.
func HostSaid(was cluster.NodeFacts, began time.Time, state cluster.Postmaster, pid int, why string) cluster.NodeFacts {
	if began.Before(was.Host.LastTry) {
		return was
	}
	f := was
	f.Host.LastTry, f.Host.Reachable, f.Host.LastError = began, why == "", why
	if why == "" {
		f.Host.Postmaster, f.Host.PID, f.Host.LastOK = state, pid, began
	} else {
		f.Host.Postmaster, f.Host.PID = cluster.PostmasterUnknown, 0
	}
	return f
}

// Notable says whether a decision could depend on the difference, or a person
// should see it at once. Positions move all the time and decide nothing by
// themselves.
func Notable(was, is cluster.NodeFacts) bool {
	if was.Reach != is.Reach || was.Failures != is.Failures || hostNotable(was, is) {
		return true
	}
	if was.Role != is.Role || was.Timeline != is.Timeline || was.SyncStandbyNames != is.SyncStandbyNames ||
		was.SystemIdentifier != is.SystemIdentifier || was.Conninfo != is.Conninfo || (was.Receiver == nil) != (is.Receiver == nil) ||
		!was.StartedAt.Equal(is.StartedAt) || was.ReplayPaused != is.ReplayPaused || !slices.Equal(was.ConfigErrors, is.ConfigErrors) {
		return true
	}
	return !slices.EqualFunc(was.Senders, is.Senders, func(x, y cluster.Sender) bool {
		return x.ApplicationName == y.ApplicationName && x.State == y.State && x.SyncState == y.SyncState
	})
}

// hostNotable: it says something else, or for the first time since the node
// cannot be reached.
func hostNotable(was, is cluster.NodeFacts) bool {
	return was.Host.Postmaster != is.Host.Postmaster || was.Host.Reachable != is.Host.Reachable ||
		is.Reach != cluster.ReachOK && is.Host.LastTry.After(was.Host.LastTry) && was.Host.LastTry.Before(is.ReachSince)
}
