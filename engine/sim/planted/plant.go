package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// plant builds the simulator with one bug and plays it until something breaks
// that does not break without the bug.
func plant(ctx context.Context, o options, base, clean string, b bug) (out outcome) {
	out = outcome{bug: b}
	began := time.Now()
	defer func() { out.took = time.Since(began) }()
	if out.err = buildWith(ctx, base, b, true); out.err != nil {
		return out
	}
	without := []string{clean}
	if len(beside[b.name]) > 0 {
		// It must be this bug that is caught, and not those beside it.
		without = append(without, base+"-without")
		if out.err = buildWith(ctx, base+"-without", b, false); out.err != nil {
			return out
		}
	}
	if o.build {
		return out
	}
	if t := theme[b.name]; t != "" {
		if out.err = out.hunt(ctx, base, without, t, o); out.err != nil || out.caught || o.themed {
			return out
		}
	}
	out.err = out.hunt(ctx, base, without, "", o)
	return out
}

// hunt plays seeds, all of them or those of a theme.
func (o *outcome) hunt(ctx context.Context, base string, without []string, theme string, opt options) error {
	for first, end := opt.from, opt.from+opt.seeds; first < end; {
		v, err := play(ctx, base, first, end-first, theme)
		if err != nil {
			return err
		}
		if !v.broken {
			o.played = max(o.played, end-opt.from)
			return nil
		}
		o.played = max(o.played, v.seed+1-opt.from)
		first = v.seed + 1
		survives := true
		for _, other := range without {
			w, err := play(ctx, other, v.seed, 1, "")
			if err != nil {
				return err
			}
			survives = survives && !w.broken
		}
		if survives {
			o.caught, o.seed, o.invariant, o.why = true, v.seed, v.invariant, v.why
			return nil
		}
	}
	return nil
}

// verdict is what the simulator says of some seeds.
type verdict struct {
	broken         bool
	seed           uint64
	invariant, why string
}

var broken = regexp.MustCompile(`(?m)^seed (\d+) broke "([^"]*)": (?:at [0-9.]+s: )?(.*)$`)

// play runs seeds, all of them or those of a theme, until one breaks.
func play(ctx context.Context, base string, from, seeds uint64, theme string) (verdict, error) {
	out, err := exec.CommandContext(ctx, base+".bin", "-seeds", fmt.Sprint(seeds), "-from", fmt.Sprint(from), "-cores", "1", "-theme", theme).CombinedOutput()
	var exit *exec.ExitError
	if err == nil {
		return verdict{}, nil
	}
	if !errors.As(err, &exit) {
		return verdict{}, fmt.Errorf("run the simulator: %w", err)
	}
	m := broken.FindStringSubmatch(string(out))
	if m == nil {
		return verdict{}, fmt.Errorf("the simulator ended without a verdict (%w): %.300s", err, out)
	}
	seed, err := strconv.ParseUint(m[1], 10, 64)
	return verdict{true, seed, m[2], m[3]}, err
}

// buildWith builds the simulator with a bug and those beside it, or with those
// alone.
func buildWith(ctx context.Context, base string, b bug, itself bool) error {
	texts, err := b.planted(itself)
	if err != nil {
		return err
	}
	return build(ctx, base, texts)
}

// build makes the simulator with some files replaced, or with none.
func build(ctx context.Context, base string, texts map[string]string) error {
	replace := map[string]string{}
	for file, text := range texts {
		whole, err := filepath.Abs(file)
		if err != nil {
			return fmt.Errorf("find %s: %w", file, err)
		}
		replace[whole] = fmt.Sprintf("%s.%d.go", base, len(replace))
		if err := os.WriteFile(replace[whole], []byte(text), 0o600); err != nil {
			return fmt.Errorf("write an overlay: %w", err)
		}
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return fmt.Errorf("write an overlay: %w", err)
	}
	if err := os.WriteFile(base+".json", overlay, 0o600); err != nil {
		return fmt.Errorf("write an overlay: %w", err)
	}
	out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", base+".json", "-o", base+".bin", "./engine/sim/run").CombinedOutput()
	if err != nil {
		return fmt.Errorf("it does not build: %s", strings.TrimSpace(string(out)))
	}
	return nil
}
