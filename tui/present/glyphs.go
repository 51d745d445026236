package present

// Glyphs are the ornaments of a locale. None carries a meaning of its own:
// each stands beside a word that says the same.
type Glyphs struct {
	OK, Warn, Alarm, Running, Pending, Skipped, Unknown string
	Select, Ellipsis, Arrow, Dash, Bullet               string
	H, V, TL, TR, BL, BR, LT, RT                        string
	Full, Ghost, Light                                  string
	Parts                                               []string // of Full, from the left, in equal steps
	Levels                                              []string // of a sparkline, from nothing to full
	Left, Right                                         string   // there is more on that side
	Tie, LooseTie                                       string   // between nodes: commits wait, or not
	Cursor                                              string   // of a replay
}

// Unicode are the ornaments where the locale is UTF-8. All are one cell wide
// and found in the fonts of consoles; none is braille.
func Unicode() Glyphs {
	return Glyphs{
		OK: "✓", Warn: "▲", Alarm: "✗", Running: "▸", Pending: "·", Skipped: "○", Unknown: "?",
		Select: "▌", Ellipsis: "…", Arrow: "→", Dash: "–", Bullet: "•",
		H: "─", V: "│", TL: "╭", TR: "╮", BL: "╰", BR: "╯", LT: "├", RT: "┤",
		Full: "█", Ghost: "┊", Light: "░",
		Parts:  []string{"▏", "▎", "▍", "▋", "▊", "▉"}, // not the one that marks a selection
		Levels: []string{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
		Left:   "‹", Right: "›", Tie: "══", LooseTie: "┄┄", Cursor: "▼",
	}
}

// ASCII are the ornaments of every other locale.
func ASCII() Glyphs {
	return Glyphs{
		OK: "+", Warn: "!", Alarm: "X", Running: ">", Pending: ".", Skipped: "o", Unknown: "?",
		Select: ">", Ellipsis: "~", Arrow: ">", Dash: "-", Bullet: "*",
		H: "-", V: "|", TL: "+", TR: "+", BL: "+", BR: "+", LT: "+", RT: "+",
		Full: "#", Ghost: "|", Light: ".",
		Levels: []string{" ", ".", ":", "-", "=", "+", "*", "#", "@"},
		Left:   "<", Right: ">", Tie: "==", LooseTie: "..", Cursor: "v",
	}
}

// Level gives the ornament and tone of a verdict's or an event's level.
func (g Glyphs) Level(level string) (string, Tone) {
	switch level {
	case "ok":
		return g.OK, Good
	case "info":
		return g.Bullet, Plain
	case "warn":
		return g.Warn, Warn
	case "alarm", "error":
		return g.Alarm, Alarm
	}
	return g.Unknown, Muted
}
