package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/hba"
)

// Load reads a configuration and looks at the files that it names. Errors
// about the content are config.Problems.
func Load(path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	if err := c.CheckFiles(); err != nil {
		return nil, err
	}
	s, err := readSecurity(c.Proxy, nil)
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		return nil, asProblems(c.Path, err)
	}
	return c, nil
}

// asProblems says what is wrong with a file that the configuration names as
// what is wrong with the configuration is said.
func asProblems(path string, err error) config.Problems {
	var rules hba.Problems
	if !errors.As(err, &rules) {
		return config.Problems{{File: path, Message: err.Error()}}
	}
	out := make(config.Problems, len(rules))
	for i, p := range rules {
		out[i] = config.Problem{File: p.File, Line: p.Line, Message: p.Message, Remedy: p.Remedy}
	}
	return out
}

// reload reads the configuration again and applies what can change while the
// daemon runs. A file with a fault changes nothing.
func (d *Daemon) reload(by string) (api.ReloadResult, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	defer d.notify.Reloading()()
	old := d.config()
	next, err := Load(old.Path)
	if err != nil {
		return d.reloadFailed(by, err)
	}
	applied, restart := config.Diff(old, next)
	merged := config.Merge(old, next)
	s, err := readSecurity(merged.Proxy, d.secured.MockSecret)
	if err == nil {
		err = d.sessions.Secure(s.Security)
	}
	if err != nil {
		return d.reloadFailed(by, asProblems(old.Path, err))
	}
	for _, key := range s.changed(d.secured) { // the same path, and something else in the file
		if !slices.Contains(applied, key) {
			applied = append(applied, key)
		}
	}
	d.secured = s
	r := api.ReloadResult{Applied: applied, Restart: restart, Unchanged: len(applied)+len(restart) == 0}
	if len(applied) > 0 {
		d.apply(merged)
	}
	d.event(reloadEvent(by, r))
	return r, nil
}

func (d *Daemon) reloadFailed(by string, err error) (api.ReloadResult, error) {
	d.event(cluster.Event{Level: cluster.Error, Kind: "reload.failed", By: by, Text: "the configuration was not reloaded, nothing was changed: " + oneLine(err)})
	return api.ReloadResult{}, err
}

func oneLine(err error) string {
	var ps config.Problems
	if errors.As(err, &ps) && len(ps) > 1 {
		return fmt.Sprintf("%s (and %d more)", ps[0], len(ps)-1)
	}
	return err.Error()
}

func reloadEvent(by string, r api.ReloadResult) cluster.Event {
	e := cluster.Event{Level: cluster.Info, Kind: "reload.done", By: by, Text: "the configuration was reloaded and has not changed"}
	if !r.Unchanged {
		e.Text = "the configuration was reloaded"
		e.Fields = map[string]string{"applied": strings.Join(r.Applied, ", "), "restart": strings.Join(r.Restart, ", ")}
	}
	if len(r.Applied) > 0 {
		e.Text += "; applied: " + strings.Join(r.Applied, ", ")
	}
	if len(r.Restart) > 0 {
		e.Level = cluster.Warn
		e.Text += "; needs a restart: " + strings.Join(r.Restart, ", ")
	}
	return e
}

// apply puts a configuration in force. Connections ask for it each time that
// they are made; the parts below keep a copy and are told.
func (d *Daemon) apply(c *config.Config) {
	d.live.Store(c)
	d.setLevel(c.Log.Level)
	d.engine.SetPolicy(assemble.Policy(c))
	d.observer.SetCheck(assemble.Check(c))
	d.sessions.Apply(limitsOf(c))
	d.applyReads(c)
	d.bell.ring()
}
