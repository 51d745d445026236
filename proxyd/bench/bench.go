package main

import (
	"context"
	"fmt"
	"slices"
)

// target is one way to the primary.
type target struct {
	name string
	host string
	port int
	pid  int // of the proxy, with all its children; 0 for none
	tls  bool

	// prepared is the database to be used with named statements, where that is
	// another one.
	prepared string

	// ready is called before each measurement, where it needs something done.
	ready func(context.Context) error
}

// setup is what a measurement wants of those it measures.
type setup struct {
	proxyd  []setting    // of its configuration; none: the lab's own daemon is measured
	rivals  []string     // who else is measured, by the names of the recipes
	clients int          // how many the rivals must let in; 0: as many as any load has
	tls     *certificate // what the rivals show to clients that ask for TLS
}

// bench is a lab, and those who lead to it.
type bench struct {
	options
	lab      *lab
	primary  *target
	proxy    *target
	proxyd   *daemon // with a configuration of ours; nil while the lab's own serves
	rivals   []*daemon
	verifier string // what the primary keeps of the clients' password
}

// open makes the proxies ready and gives what is to be measured: the primary
// first, then proxyd, then its rivals.
func (b *bench) open(ctx context.Context, s setup) ([]*target, error) {
	var err error
	if b.primary, err = b.lab.primary(ctx); err != nil {
		return nil, err
	}
	if b.verifier, err = b.lab.ownVerifier(ctx, b.primary); err != nil {
		return nil, err
	}
	b.proxy = &target{name: "proxyd", host: b.lab.Proxy.Host, port: b.lab.Proxy.Port, pid: b.lab.ProxydPID}
	if len(s.proxyd) > 0 {
		if err := b.reconfigure(ctx, s.proxyd); err != nil {
			return nil, err
		}
	}
	progress("filling pgbench's tables at scale %d", b.scale)
	if err := b.lab.fill(ctx, b.primary, b.scale); err != nil {
		return nil, err
	}
	all := []*target{b.primary, b.proxy}
	for _, r := range recipes {
		if !slices.Contains(s.rivals, r.name) || !b.chosen(r.name) {
			continue
		}
		d, err := r.start(ctx, b, s)
		if err != nil {
			progress("%s is left out: %v", r.name, err)
			continue
		}
		b.rivals = append(b.rivals, d)
		all = append(all, d.target)
	}
	return slices.DeleteFunc(all, func(t *target) bool { return !b.chosen(t.name) }), nil
}

func (b *bench) chosen(name string) bool { return len(b.only) == 0 || slices.Contains(b.only, name) }

// reconfigure has a proxyd with these settings serve instead of the one before.
func (b *bench) reconfigure(ctx context.Context, settings []setting) error {
	if b.proxyd != nil {
		b.proxyd.stop()
		b.proxyd = nil
	}
	d, err := b.lab.proxyd(ctx, settings)
	if err != nil {
		return fmt.Errorf("start proxyd with other settings: %w", err)
	}
	b.proxyd, b.proxy.pid = d, d.target.pid
	return nil
}

func (b *bench) stop() {
	for _, r := range b.rivals {
		r.stop()
	}
	if b.proxyd != nil {
		b.proxyd.stop()
	}
}

// rounds measures each target as often as asked for. Each round begins with
// another target, so that what drifts on the machine falls on all of them alike.
func rounds[S fmt.Stringer](ctx context.Context, b *bench, what string, targets []*target, measure func(context.Context, *target) (S, error)) ([]result[S], error) {
	all := make([]result[S], len(targets))
	for i, t := range targets {
		all[i].target = t
	}
	for round := range b.options.rounds {
		for i := range all {
			r := &all[(round+i)%len(all)]
			if r.target.ready != nil {
				if err := r.target.ready(ctx); err != nil {
					return nil, err
				}
			}
			s, err := measure(ctx, r.target)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", what, r.target.name, err)
			}
			progress("%s, round %d of %d: %-12s %s", what, round+1, b.options.rounds, r.target.name, s)
			r.samples = append(r.samples, s)
		}
	}
	return all, nil
}
