package sim

import (
	"slices"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// record is one WAL record. Records are known by their number in the world's
// list, so two nodes hold the same history exactly as far as the numbers agree,
// whatever their LSNs and timelines say.
type record struct {
	start, end cluster.LSN
	tli        cluster.Timeline
	commit     int // the commit it makes; 0 for none
}

// firstLSN is where every log begins.
const firstLSN = cluster.LSN(0x1000000)

// segment is the size of a WAL segment here: small, so that a run crosses many.
const segment = 4096

// switched is one entry of a timeline history: the timeline began here.
type switched struct {
	tli cluster.Timeline
	at  cluster.LSN
}

// disk is what survives a node's processes.
type disk struct {
	present bool
	broken  bool // a rewind or a copy was left half done
	corrupt bool // a rewind believed in a history that was not there
	full    bool
	system  uint64

	wal      []int32 // record numbers; durable up to flushed
	flushed  int
	restart  int // where recovery begins: the last checkpoint or restartpoint
	retained int // WAL before it is gone
	tli      cluster.Timeline
	history  []switched

	state      string // pg_control's state
	controlTLI cluster.Timeline
	checkpoint cluster.LSN
	label      bool // backup_label
	signal     bool // standby.signal
	names      string
	conninfo   string
	slotName   string // primary_slot_name
	slots      []slot
}

// slot is a replication slot: it holds the WAL after what its standby has
// confirmed, as far as the server lets it.
type slot struct {
	name    string
	restart int
	lost    bool
}

func (d *disk) slot(name string) *slot {
	for i := range d.slots {
		if d.slots[i].name == name {
			return &d.slots[i]
		}
	}
	return nil
}

// ensureSlot makes a slot unless it is there and of use.
func (d *disk) ensureSlot(name string) {
	if s := d.slot(name); s == nil {
		d.slots = append(d.slots, slot{name: name, restart: d.restart})
	} else if s.lost {
		s.lost, s.restart = false, d.restart
	}
}

// end is the position after the first i records.
func (w *world) end(d *disk, i int) cluster.LSN {
	if i == 0 {
		return firstLSN
	}
	return w.records[d.wal[i-1]].end
}

// index is how many records lie at or before a position.
func (w *world) index(d *disk, lsn cluster.LSN) int {
	i, _ := slices.BinarySearchFunc(d.wal, lsn, func(r int32, l cluster.LSN) int {
		if w.records[r].end <= l {
			return -1
		}
		return 1
	})
	return i
}

// add writes a record at the end of a disk's log. It is not durable yet.
func (w *world) add(d *disk, commit int) {
	start := w.end(d, len(d.wal))
	w.records = append(w.records, record{start: start, end: start + cluster.LSN(24+w.rng.IntN(200)), tli: d.tli, commit: commit})
	d.wal = append(d.wal, int32(len(w.records)-1))
}

// common is how many records two logs share.
func common(a, b *disk) int {
	n := 0
	for n < len(a.wal) && n < len(b.wal) && a.wal[n] == b.wal[n] {
		n++
	}
	return n
}

// holds says whether a commit is durable on a disk.
func (w *world) holds(d *disk, c *commit) bool {
	if !d.present || d.broken || d.corrupt || c.record < 0 {
		return false
	}
	i := w.index(d, w.records[c.record].start)
	return i < d.flushed && d.wal[i] == c.record
}

// walCopy makes a log that shares nothing.
func walCopy(d *disk, n int) []int32 { return append(make([]int32, 0, n+64), d.wal[:n]...) }

// switchOf is where a history says a timeline ended, and whether it knows it.
func (d *disk) switchOf(tli cluster.Timeline) (end cluster.LSN, known bool) {
	for i, h := range d.history {
		if h.tli == tli {
			if i+1 < len(d.history) {
				return d.history[i+1].at, true
			}
			return 1 << 62, true
		}
	}
	return 0, false
}
