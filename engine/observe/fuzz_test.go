package observe

import (
	"strings"
	"testing"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// FuzzHistory: a history file that was read ends with the timeline it is of.
func FuzzHistory(f *testing.F) {
	f.Add("1\t0/3000060\tno recovery target specified\n\n2\t0/5000000\tat LSN\n", uint32(3))
	f.Add("# nothing\n", uint32(2))
	f.Add("1", uint32(2))
	f.Add("-1 0/0", uint32(0))
	f.Add("1 0/0/0\r\n4294967296 0/0", uint32(9))
	f.Fuzz(func(t *testing.T, text string, tli uint32) {
		h, err := history(7, cluster.Timeline(tli), text)
		if err != nil {
			return
		}
		if last := h[len(h)-1]; uint32(last.Timeline) != tli || len(h) > strings.Count(text, "\n")+2 {
			t.Errorf("timeline %d: %+v", tli, h)
		}
	})
}

// FuzzWALFile: the number of a WAL file is what a server says it is.
func FuzzWALFile(f *testing.F) {
	for _, s := range []string{"0000000000000001", "FFFFFFFFFFFFFFFF", "1", "0000000G00000000", "00000000000000000", "+0000001-0000001"} {
		f.Add(s, uint64(16<<20))
	}
	f.Fuzz(func(t *testing.T, number string, size uint64) {
		if at, err := beginOfWAL(number, size); err == nil && (at == 0 || len(number) != 16) {
			t.Errorf("%q begins at %v", number, at)
		}
	})
}
