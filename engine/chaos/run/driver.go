package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgtandem/pgtandem/engine/chaos/history"
	"github.com/pgtandem/pgtandem/engine/chaos/schedule"
	"github.com/pgtandem/pgtandem/engine/lab/control"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

// act is one step that was made.
type act struct {
	At      time.Duration `json:"at_ns"`   // the history's clock
	Took    time.Duration `json:"took_ns"` // until the verb returned
	Gesture string        `json:"gesture"`
	Step    string        `json:"step"` // with the nodes' names
	Note    string        `json:"note,omitempty"`
}

func (a act) String() string {
	s := fmt.Sprintf("%7.3f s  %-28s %s", a.At.Seconds(), a.Gesture, a.Step)
	if note := strings.Join(strings.Fields(a.Note), " "); note != "" {
		s += "  (" + note[:min(len(note), mostOfANote)] + ")"
	}
	return s
}

// mostOfANote is how much of a verb's complaint fits a line; a server's last
// words may be long.
const mostOfANote = 300

// driver makes the gestures of a schedule on a cluster.
type driver struct {
	c    *cluster
	log  *history.Log
	told func(act)

	mu   sync.Mutex
	last control.State // what the daemon said when it last answered
	acts []act
}

// patienceWithAVerb bounds a verb that hangs because of another.
const patienceWithAVerb = 10 * time.Second

// drive makes the gestures and returns when all are made.
func (d *driver) drive(ctx context.Context, s schedule.Schedule) {
	begun := d.log.Now()
	var hands sync.WaitGroup
	for _, g := range s.Gestures {
		hands.Add(1)
		go func() {
			defer hands.Done()
			d.gesture(ctx, begun, g)
		}()
	}
	hands.Wait()
}

func (d *driver) gesture(ctx context.Context, begun time.Duration, g schedule.Gesture) {
	if !d.until(ctx, begun+g.At) {
		return
	}
	bind := d.roles(ctx)
	var asked sync.WaitGroup
	defer asked.Wait()
	for _, step := range g.Steps {
		if !d.until(ctx, begun+g.At+step.After) {
			return
		}
		step.Fault.Node, step.Fault.Peer = bind(step.Fault.Node), bind(step.Fault.Peer)
		if step.Fault.Verb == schedule.Switchover {
			asked.Add(1)
			go func() { // a switchover takes its time, and the hand goes on
				defer asked.Done()
				d.do(ctx, g.Name, step)
			}()
			continue
		}
		d.do(ctx, g.Name, step)
	}
}

// until waits for a moment of the history's clock.
func (d *driver) until(ctx context.Context, at time.Duration) bool {
	t := time.NewTimer(at - d.log.Now())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// roles gives the names of the nodes that have the roles now, as far as the
// daemon says or last said.
func (d *driver) roles(ctx context.Context) func(role string) string {
	bounded, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	s, err := d.c.daemon.State(bounded)
	d.mu.Lock()
	if err == nil && s.Primary != "" {
		d.last = s
	}
	s = d.last
	d.mu.Unlock()
	standbys := s.Standbys()
	return func(role string) string {
		switch role {
		case schedule.Primary:
			return s.Primary
		case schedule.Standby:
			return standbys[0]
		case schedule.Other:
			return standbys[len(standbys)-1]
		}
		return role
	}
}

func (d *driver) do(ctx context.Context, gesture string, step schedule.Step) {
	a := act{At: d.log.Now(), Gesture: gesture, Step: step.String()}
	bounded, cancel := context.WithTimeout(ctx, patienceWithAVerb)
	defer cancel()
	var err error
	switch {
	case step.Fault.Verb == schedule.Switchover:
		err = d.c.daemon.Switchover(bounded, step.Fault.Node)
	case step.Undo:
		err = d.c.faults.Undo(bounded, step.Fault)
	default:
		err = d.c.faults.Do(bounded, step.Fault)
	}
	a.Took = d.log.Now() - a.At
	if err != nil {
		a.Note = err.Error()
		if errors.Is(err, fault.ErrNothing) {
			a.Note = "nothing to do: " + a.Note
		}
	}
	d.mu.Lock()
	d.acts = append(d.acts, a)
	d.mu.Unlock()
	d.told(a)
}
