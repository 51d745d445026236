package daemon

import (
	"io"
	"log/slog"

	"github.com/pgtandem/pgtandem/config"
)

// logger makes the daemon's own log and the level by which a reload changes
// it. The journal has its own clock, but a terminal has not, so times stay.
func logger(c config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	level.Set(levelFor(c.Level))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), level
	}
	return slog.New(slog.NewTextHandler(w, o)), level
}

func levelFor(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
