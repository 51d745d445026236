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
	all    []sample
	last   uint64 // transactions when the present sample began
	lastAt time.Time
}

// Add takes note of a state that came in.
func (s *Samples) Add(st api.State, at time.Time) {
	n := sample{at: at.Truncate(sampleEvery), lag: -1, held: st.Pool.Held}
	for _, node := range st.Nodes {
		if node.Role != "primary" {
			n.lag = max(n.lag, node.LagBytes)
		}
	}
	if k := len(s.all); k > 0 && !n.at.After(s.all[k-1].at) {
		last := &s.all[k-1]
		last.lag, last.held = max(last.lag, n.lag), max(last.held, n.held)
		return
	}
	if gone := at.Sub(s.lastAt); len(s.all) > 0 && st.Pool.Transactions >= s.last && gone > 0 {
		n.transactions = float64(st.Pool.Transactions-s.last) / gone.Seconds()
	}
	s.last, s.lastAt = st.Pool.Transactions, at
	s.all = append(s.all, n)
	if extra := len(s.all) - samplesKept; extra > 0 {
		s.all = append([]sample(nil), s.all[extra:]...)
	}
}

// chart is one row: a name, the greatest and the present value, and the way
// between them. A second without a sample is a gap.
func (s *Samples) chart(name string, now time.Time, width int, g present.Glyphs, value func(sample) float64, format func(float64) string) present.Line {
	const head = 40
	cells := max(0, min(width-head, samplesKept))
	from := now.Add(-time.Duration(cells) * sampleEvery).Truncate(sampleEvery)
	row, most, current := s.row(from, cells, value)
	line := present.L(present.S(present.Muted, fmt.Sprintf("%-14s", name)),
		present.S(present.Strong, fmt.Sprintf("%9s", format(current))), present.S(present.Muted, fmt.Sprintf("  max %-9s ", format(most))))
	top := len(g.Levels) - 1
	spark := ""
	for _, v := range row {
		switch {
		case v < 0:
			spark += " "
		case most == 0 || v == 0:
			spark += g.Levels[1]
		default:
			spark += g.Levels[max(1, int(v/most*float64(top)))]
		}
	}
	return append(line.Fill(head, ""), present.S(present.Accent, spark))
}

// hold is for how many samples a value stands where no state came: they come
// about once a second, not exactly.
const hold = 2

// row is a value for each sample's time, -1 where nothing is known.
func (s *Samples) row(from time.Time, cells int, value func(sample) float64) (row []float64, most, current float64) {
	row = make([]float64, cells)
	for i := range row {
		row[i] = -1
	}
	for _, x := range s.all {
		i := int(x.at.Sub(from)/sampleEvery) - 1
		current = value(x)
		for j := max(i, 0); j <= i+hold && j < cells && i >= 0; j++ {
			row[j] = current
		}
		if i >= 0 {
			most = max(most, current)
		}
	}
	return row, most, current
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
