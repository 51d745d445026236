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

// row is a bug and the variants that tell whether it is caught: the one in which
// it lives, and the one with only those beside it; 0 where it has none.
type row struct {
	bug           bug
	with, without int
}

// rows numbers the variants.
func rows(bugs []bug) (all []row, variants []variant) {
	for _, b := range bugs {
		others := named(beside[b.name])
		r := row{bug: b, with: len(variants) + 1}
		variants = append(variants, variant{r.with, append([]bug{b}, others...)})
		if len(others) > 0 {
			r.without = len(variants) + 1
			variants = append(variants, variant{r.without, others})
		}
		all = append(all, r)
	}
	return all, variants
}

// plant plays a bug until something breaks that does not break without it.
func plant(ctx context.Context, o options, bin string, r row) (out outcome) {
	out = outcome{bug: r.bug}
	began := time.Now()
	defer func() { out.took = time.Since(began) }()
	// Where to look first: from a seed that is known to catch it, then those of
	// its theme.
	for _, t := range []span{{late[r.bug.name], theme[r.bug.name]}, {0, theme[r.bug.name]}} {
		if t == (span{}) {
			continue // it is among the first to be caught
		}
		if out.err = out.hunt(ctx, bin, r, t, o); out.err != nil || out.caught {
			return out
		}
	}
	if !o.themed || theme[r.bug.name] == "" {
		out.err = out.hunt(ctx, bin, r, span{}, o)
	}
	return out
}

// span is which seeds to play of those that are asked for.
type span struct {
	from  uint64
	theme string
}

// hunt plays seeds.
func (o *outcome) hunt(ctx context.Context, bin string, r row, s span, opt options) error {
	for first, end := max(opt.from, s.from), opt.from+opt.seeds; first < end; {
		v, err := play(ctx, bin, r.with, first, end-first, s.theme)
		if err != nil {
			return err
		}
		if !v.broken {
			o.played = max(o.played, end-opt.from)
			return nil
		}
		o.played = max(o.played, v.seed+1-opt.from)
		first = v.seed + 1
		// It must be this bug that is caught, and not those beside it.
		clean, err := play(ctx, bin, r.without, v.seed, 1, "")
		if err != nil {
			return err
		}
		if !clean.broken {
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

// play runs seeds of a variant, all of them or those of a theme, until one
// breaks.
func play(ctx context.Context, bin string, alive int, from, seeds uint64, theme string) (verdict, error) {
	cmd := exec.CommandContext(ctx, bin, "-seeds", fmt.Sprint(seeds), "-from", fmt.Sprint(from), "-cores", "1", "-theme", theme)
	cmd.Env = append(os.Environ(), fmt.Sprintf("PLANTED=%d", alive))
	out, err := cmd.CombinedOutput()
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

// build makes the simulator with some files replaced or added.
func build(ctx context.Context, dir string, texts map[string]string) (bin string, err error) {
	replace := map[string]string{}
	for file, text := range texts {
		whole, err := filepath.Abs(file)
		if err != nil {
			return "", fmt.Errorf("find %s: %w", file, err)
		}
		replace[whole] = filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(replace[whole], []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write an overlay: %w", err)
		}
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("write an overlay: %w", err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", fmt.Errorf("write an overlay: %w", err)
	}
	bin = filepath.Join(dir, "sim")
	out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", list, "-o", bin, "./engine/sim/run").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("a bug does not build; the number behind Planted is its variant: %s", strings.TrimSpace(string(out)))
	}
	return bin, nil
}
