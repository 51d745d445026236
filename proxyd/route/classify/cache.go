package classify

import (
	"hash/maphash"
	"sync"
)

// overhead is about what an entry takes beside its texts, in bytes: itself,
// its place in the map, and what the allocator rounds up.
const overhead = 200

// entry is what is known of the texts with one key. Its facts never change;
// its verdict is that of one generation of the catalog.
type entry struct {
	key        string
	hash       uint64
	facts      facts
	verdict    Verdict
	generation *generation
	size       int

	newer, older *entry
}

// cache keeps the facts of texts, the least recently used going first. It is
// split in shards, so that event loops seldom meet at one lock; a hit
// allocates nothing.
type cache struct {
	seed   maphash.Seed
	shards []shard
}

type shard struct {
	mu             sync.Mutex
	entries        map[uint64]*entry
	newest, oldest *entry
	size, limit    int

	_ [64]byte // the next shard's lock lies on another cache line
}

const mostShards = 16

// newCache makes a cache for about so many bytes.
func newCache(bytes int) *cache {
	n := mostShards
	for n > 1 && bytes/n < 4*MaxText {
		n /= 2
	}
	c := &cache{seed: maphash.MakeSeed(), shards: make([]shard, n)}
	for i := range c.shards {
		c.shards[i].entries = map[uint64]*entry{}
		c.shards[i].limit = bytes / n
	}
	return c
}

// find gives the verdict under the present generation. What was judged under
// an earlier one is judged again, which parses nothing.
func (c *cache) find(key []byte, now *generation) (Verdict, bool) {
	hash := maphash.Bytes(c.seed, key)
	s := &c.shards[hash%uint64(len(c.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[hash]
	if e == nil || e.key != string(key) {
		return Verdict{}, false
	}
	s.unlink(e)
	s.link(e)
	if e.generation != now {
		e.verdict, e.generation = e.facts.against(now.catalog), now
	}
	return e.verdict, true
}

// keep adds what was found out about a key.
func (c *cache) keep(key []byte, f facts, v Verdict, of *generation) {
	hash := maphash.Bytes(c.seed, key)
	s := &c.shards[hash%uint64(len(c.shards))]
	e := &entry{key: string(key), hash: hash, facts: f, verdict: v, generation: of, size: overhead + len(key) + f.size()}
	if e.size > s.limit {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[hash]; old != nil {
		s.drop(old)
	}
	for s.size+e.size > s.limit {
		s.drop(s.oldest)
	}
	s.entries[hash] = e
	s.size += e.size
	s.link(e)
}

// usage counts entries and their bytes.
func (c *cache) usage() (entries, bytes int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		entries += len(s.entries)
		bytes += s.size
		s.mu.Unlock()
	}
	return entries, bytes
}

func (s *shard) drop(e *entry) {
	s.unlink(e)
	delete(s.entries, e.hash)
	s.size -= e.size
}

func (s *shard) link(e *entry) {
	e.older, e.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = e
	} else {
		s.oldest = e
	}
	s.newest = e
}

func (s *shard) unlink(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	e.newer, e.older = nil, nil
}
