package page

import (
	"fmt"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/tui/present"
)

// sampleEvery is the width of one sample, and samplesKept how many there are:
// five minutes.
const (
	sampleEvery = time.Second
	samplesKept = 300
)

// sample is the greatest of what was seen in its time: a mean hides a stall.
type sample struct {
	at           time.Time
	transactions float64 // per second
	lag          int64   // bytes, the worst standby's; -1 not known
	held         int
}

// Samples are the last minutes, as the states told them.
type Samples struct {
	all       []sample
	last      uint64
	lastAt    time.Time
	lastKnown bool
}

// Add takes note of a state that came in.
func (s *Samples) Add(st api.State, at time.Time) {
	n := sample{at: at.Truncate(sampleEvery), lag: -1, held: st.Pool.Held}
	for _, node := range st.Nodes {
		if node.Role != "primary" {
			n.lag = max(n.lag, node.LagBytes)
		}
	}
	if gone := at.Sub(s.lastAt); s.lastKnown && gone < sampleEvery {
		s.merge(n)
		return
	} else if s.lastKnown && st.Pool.Transactions >= s.last {
		n.transactions = float64(st.Pool.Transactions-s.last) / gone.Seconds()
	}
	s.last, s.lastAt, s.lastKnown = st.Pool.Transactions, at, true
	s.all = append(s.all, n)
	if len(s.all) > samplesKept {
		s.all = append([]sample(nil), s.all[len(s.all)-samplesKept:]...)
	}
}

func (s *Samples) merge(n sample) {
	if len(s.all) == 0 {
		return
	}
	last := &s.all[len(s.all)-1]
	last.lag, last.held = max(last.lag, n.lag), max(last.held, n.held)
}

// chart is one row: a name, the greatest and the present value, and the way
// between them. A second without a sample is a gap.
func (s *Samples) chart(name string, now time.Time, width int, g present.Glyphs, value func(sample) float64, format func(float64) string) present.Line {
	const head = 40
	cells := max(0, min(width-head, samplesKept))
	most, current := 0.0, 0.0
	at := map[int64]float64{}
	from := now.Add(-time.Duration(cells) * sampleEvery)
	for _, x := range s.all {
		if x.at.Before(from) {
			continue
		}
		v := value(x)
		at[x.at.Unix()] = max(at[x.at.Unix()], v)
		most, current = max(most, v), v
	}
	line := present.L(present.S(present.Muted, fmt.Sprintf("%-14s", name)),
		present.S(present.Strong, fmt.Sprintf("%9s", format(current))), present.S(present.Muted, fmt.Sprintf("  max %-9s ", format(most))))
	top := len(g.Levels) - 1
	spark := ""
	for i := range cells {
		v, ok := at[from.Add(time.Duration(i+1)*sampleEvery).Unix()]
		switch {
		case !ok:
			spark += " "
		case most == 0 || v == 0:
			spark += g.Levels[1]
		default:
			spark += g.Levels[max(1, int(v/most*float64(top)))]
		}
	}
	return append(line.Fill(head, ""), present.S(present.Accent, spark))
}

// Charts are the rows of the overview.
func (s *Samples) Charts(now time.Time, width int, g present.Glyphs) []Row {
	count := func(v float64) string { return present.Thousands(uint64(max(0, v))) }
	bytes := func(v float64) string { return present.Bytes(int64(v)) }
	return Rows([]present.Line{
		s.chart("transactions/s", now, width, g, func(x sample) float64 { return x.transactions }, count),
		s.chart("replay lag", now, width, g, func(x sample) float64 { return float64(max(0, x.lag)) }, bytes),
		s.chart("clients held", now, width, g, func(x sample) float64 { return float64(x.held) }, count),
	})
}
