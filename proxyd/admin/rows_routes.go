package admin

import (
	"maps"
	"slices"
)

// routeMeanings are the labels of the reasons that a decision can have, in words.
var routeMeanings = map[string]struct{ to, meaning string }{
	"standby":            {"standby", "it may be read anywhere, and it was the standby's turn"},
	"primary_by_weight":  {"primary", "it may be read anywhere, and it was the primary's turn"},
	"text":               {"primary", "it writes, or nothing says that it does not"},
	"pin":                {"primary", "the client has settings that a standby refuses"},
	"own_writes":         {"primary", "no standby has replayed yet what the client wrote"},
	"lag":                {"primary", "no standby is within reads.lag_limit and reads.lag_limit_bytes"},
	"failed":             {"primary", "it had failed on the standbys"},
	"no_standby":         {"primary", "no standby is in sight"},
	"no_standby_allowed": {"primary", "no standby has allow_reads"},
	"refusal":            {"another node", "a standby refused it, was lost, or had no connection for it"},
}

func routeRows(v *View) []row {
	var out []row
	for _, reason := range slices.Sorted(maps.Keys(v.Routes)) {
		m := routeMeanings[reason]
		out = append(out, row{m.to, reason, v.Routes[reason], m.meaning})
	}
	return out
}
