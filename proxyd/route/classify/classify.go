package classify

import (
	"bytes"
	"sync/atomic"
	"unicode/utf8"
)

// Classifier judges the texts of one database. It is safe for concurrent use,
// through a Reader for each of its users.
type Classifier struct {
	cache *cache
	now   atomic.Pointer[generation]
}

// generation is one state of the catalog.
type generation struct {
	catalog Catalog
}

// New makes a classifier that keeps about so many bytes of what it has learnt.
// Until Use has given it a catalog, everything goes to the primary.
func New(cacheBytes int) *Classifier {
	c := &Classifier{cache: newCache(cacheBytes)}
	c.Use(unread{})
	return c
}

// unread is the catalog before there is one.
type unread struct{ Catalog }

func (unread) Unready() string { return "came before the catalog was read" }

// Use puts a catalog into force: verdicts that were made from another are not
// given any more. The catalog's answers must not change.
func (c *Classifier) Use(catalog Catalog) { c.now.Store(&generation{catalog}) }

// Stamp tells whether verdicts still hold: it changes with the catalog. Who
// keeps a verdict, as for a prepared statement, reads the stamp before asking
// for it, keeps both, and asks again when they differ.
type Stamp struct{ of *generation }

// Stamp is that of the catalog in force.
func (c *Classifier) Stamp() Stamp { return Stamp{c.now.Load()} }

// Usage counts the texts that are kept and about how many bytes they take.
func (c *Classifier) Usage() (texts, bytes int) { return c.cache.usage() }

// Rules are what of a session changes how its texts are read.
type Rules struct {
	// Backslashes: standard_conforming_strings is off.
	Backslashes bool
	// Encoding: client_encoding is one of those that a server cannot have
	// (BIG5, GB18030, GBK, JOHAB, SHIFT_JIS_2004, SJIS, UHC), in which a byte
	// that looks like ASCII may be half of a letter.
	Encoding bool
}

// follow says whether a text means the same under these rules as under the
// usual ones.
func (r Rules) follow(text []byte) bool {
	if r.Backslashes && bytes.IndexByte(text, '\\') >= 0 {
		return false
	}
	return !r.Encoding || bytes.IndexFunc(text, func(c rune) bool { return c >= utf8.RuneSelf }) < 0
}

// Reader is one user of a Classifier, as an event loop: it owns the room in
// which keys are written. It is not safe for concurrent use.
type Reader struct {
	of  *Classifier
	key []byte
}

// Reader makes one.
func (c *Classifier) Reader() *Reader { return &Reader{of: c} }

// Lookup gives the verdict of a text where that needs no parsing. It neither
// allocates nor waits for anything but another reader's hit.
func (r *Reader) Lookup(text []byte, rules Rules) (v Verdict, known bool) {
	v, _, known = r.lookup(text, rules, r.of.now.Load())
	return v, known
}

// Classify gives the verdict of a text, and parses it where it is the first of
// its kind: that may take milliseconds for a long one.
func (r *Reader) Classify(text []byte, rules Rules) Verdict {
	now := r.of.now.Load()
	v, key, known := r.lookup(text, rules, now)
	if known {
		return v
	}
	f := look(example(key))
	f.verdict.Schema = f.verdict.Schema || ChangesSchema(text)
	v = f.against(now.catalog)
	r.of.cache.keep(key, f, v, now)
	return v
}

// lookup gives either a verdict or the key under which it is to be kept.
func (r *Reader) lookup(text []byte, rules Rules, now *generation) (v Verdict, key []byte, known bool) {
	first, empty := leading(text)
	switch {
	case empty:
		return Verdict{Kind: Read}, nil, true
	case first.kind == certain:
		return Verdict{Kind: Write, Schema: ChangesSchema(text), Reason: first.reason}, nil, true
	case first.kind == unknownLead:
		return Verdict{Kind: Write, Reason: "begins with a word that is not known"}, nil, true
	case len(text) > MaxText:
		return Verdict{Kind: Write, Reason: "is longer than 64 KiB, which is not parsed"}, nil, true
	case bytes.IndexByte(text, 0) >= 0: // ends the text for the grammar, which is in C
		return Verdict{Kind: Write, Reason: "is written in a way that is not followed"}, nil, true
	case !rules.follow(text):
		return Verdict{Kind: Write, Reason: "has letters or backslashes that the session's settings give another meaning"}, nil, true
	}
	l := lexer{text: text, key: r.key[:0], literals: first.kind == utility}
	l.normalize()
	r.key = l.key
	switch {
	case l.odd:
		return Verdict{Kind: Write, Reason: "is written in a way that is not followed"}, nil, true
	case l.words > MaxWords:
		return Verdict{Kind: Write, Reason: "has more than 2000 words and signs, which is not parsed"}, nil, true
	}
	v, known = r.of.cache.find(l.key, now)
	return v, l.key, known
}
