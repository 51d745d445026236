package daemon

import (
	"context"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/proxyd/admin"
	"github.com/pgtandem/pgtandem/proxyd/api"
	"github.com/pgtandem/pgtandem/proxyd/pool"
	"github.com/pgtandem/pgtandem/proxyd/session"
	"github.com/pgtandem/pgtandem/proxyd/wire"
)

// door is the console as the sessions know it.
type door struct{ *admin.Console }

var _ session.Console = door{}

func (door) Owns(database string) bool             { return admin.Owns(database) }
func (door) Owner(conn net.Conn, user string) bool { return admin.Owner(conn, user) }
func (d door) Serve(ctx context.Context, v session.Visit) error {
	return d.Console.Serve(ctx, admin.Visit(v))
}

// plane is the data plane as the console knows it.
type plane struct{ *Daemon }

var _ admin.Plane = plane{}

func (p plane) Pause(ctx context.Context, database string) error {
	if n := len(p.fleet.list()); n > 0 { // whose servers PAUSE could not promise the end of
		return wire.Errorf(wire.CodeNotInPrerequisiteState, "PAUSE has to wait: %d earlier proxyd still serve the clients they had before an upgrade", n).
			WithHint("They end with their clients, or when proxy.drain_timeout is over; SIGTERM ends one of them at once.")
	}
	return p.sessions.Pause(ctx, database)
}
func (p plane) Resume(database string) error { return p.sessions.Resume(database) }
func (p plane) Disable(database string)      { p.sessions.Disable(database) }
func (p plane) Enable(database string)       { p.sessions.Enable(database) }
func (p plane) Reconnect(database string) {
	p.sessions.Reconnect(database)
	p.fleet.tell(opReconnect, database)
}
func (p plane) Kill(database string) {
	p.sessions.Kill(database)
	p.fleet.tell(opKill, database)
}
func (p plane) KillClient(id uint64) bool { return p.sessions.KillClient(id) }
func (p plane) WaitClose(ctx context.Context, database string) error {
	return p.sessions.WaitClose(ctx, database)
}

// View implements admin.Plane.
func (p plane) View() admin.View {
	l, g := p.sessions.Look(), p.gate.Status()
	holds, holdTime := p.gate.Holds()
	return viewOf(l, admin.Gate{
		Open: g.State == "open", Node: g.Node, Reason: g.Reason, Held: g.Held, OldestHeld: time.Duration(g.OldestHeldMS) * time.Millisecond,
		Holds: holds, HoldTime: holdTime,
	})
}

// viewOf says what the sessions see in the console's words.
func viewOf(l session.Look, g admin.Gate) admin.View {
	v := admin.View{
		At: l.At, Mode: string(l.Limits.Mode), Gate: g, PausedAll: l.PausedAll, Errors: l.Errors, Routes: l.Routes,
		Limits: admin.Limits{MaxClients: l.Limits.MaxClients, PoolSize: l.Limits.PoolSize, MaxServers: l.Limits.MaxServers},
		Totals: make(map[string]admin.Totals), Statements: make(map[string]uint64),
	}
	databases, pools := make(map[string]bool), make(map[pool.Group]bool)
	for _, f := range l.Pools {
		databases[f.Database], pools[f.Group] = true, true
		v.Pools = append(v.Pools, admin.Pool{Database: f.Database, User: f.User, Terms: wordsOf(&l.Limits, f.Group), Connecting: f.Servers[pool.Connecting], Idle: f.Servers[pool.Idle],
			Active: f.Servers[pool.Active], Cleaning: f.Servers[pool.Cleaning], Waiting: f.Waiting, OldestWait: f.OldestWait})
	}
	for _, c := range l.Clients {
		if c.State != admin.ClientLogin && !c.Console {
			if databases[c.Group.Database] = true; !pools[c.Group] {
				pools[c.Group] = true
				v.Pools = append(v.Pools, admin.Pool{Database: c.Group.Database, User: c.Group.User, Terms: wordsOf(&l.Limits, c.Group)})
			}
		}
		v.Clients = append(v.Clients, clientOf(c, l, g))
	}
	for _, s := range l.Servers {
		v.Servers = append(v.Servers, serverOf(s))
	}
	totals(&v, l)
	for _, name := range slices.Concat(l.Paused, l.Disabled, slices.Collect(maps.Keys(v.Totals))) {
		databases[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(databases)) {
		servers, clients := l.Limits.OfDatabase(name)
		v.Databases = append(v.Databases, admin.Database{Name: name, Paused: slices.Contains(l.Paused, name), Disabled: slices.Contains(l.Disabled, name),
			Terms: wordsOf(&l.Limits, pool.Group{Database: name}), MaxServers: servers, MaxClients: clients})
	}
	users := make(map[string]bool)
	for g := range pools {
		users[g.User] = true
	}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		servers, clients := l.Limits.OfUser(name)
		v.Users = append(v.Users, admin.User{Name: name, Terms: wordsOf(&l.Limits, pool.Group{User: name}), MaxServers: servers, MaxClients: clients})
	}
	return v
}

// wordsOf gives the terms of a database and user, either of which may be left
// open.
func wordsOf(l *session.Limits, g pool.Group) admin.Terms {
	t := l.For(g)
	return admin.Terms{Mode: string(t.Mode), PoolSize: t.PoolSize, MinPoolSize: t.MinPoolSize, ReserveSize: t.ReserveSize, ServerLifetime: t.Lifetime}
}

// totals sums the counters up by database, and by node.
func totals(v *admin.View, l session.Look) {
	for k, c := range l.Counters {
		t := v.Totals[k.Database]
		t.Assignments += c.Assignments
		t.Transactions += c.Transactions
		t.Queries += c.Queries
		t.Received += c.Received
		t.Sent += c.Sent
		t.TransactionTime += c.TransactionTime
		t.QueryTime += c.QueryTime
		t.WaitTime += c.WaitTime
		t.ClientParses += c.ClientParses
		t.ServerParses += c.ServerParses
		t.Binds += c.Binds
		v.Totals[k.Database] = t
		v.Statements[k.Node.String()] += c.Queries
	}
	for database, n := range l.Logins {
		t := v.Totals[database]
		t.Logins = n
		v.Totals[database] = t
	}
}

func clientOf(c session.ClientLook, l session.Look, g admin.Gate) admin.Client {
	out := admin.Client{
		ID: c.ID, Database: c.Group.Database, User: c.Group.User, State: c.State, Remote: addressOf(c.Remote), Local: addressOf(c.Local),
		Connected: c.Started, Requested: c.Since, Server: c.ServerID, Node: c.Node, PID: c.PID, TLS: c.TLS,
		Application: c.Application, Prepared: c.Prepared, Pinned: c.Pinned, Route: c.Route,
	}
	if !c.Waits {
		return out
	}
	out.Wait = max(0, l.At.Sub(c.Since))
	switch {
	case c.State == admin.ClientWaiting:
		out.WaitsFor = "a server of the pool"
	case l.PausedAll || slices.Contains(l.Paused, c.Group.Database):
		out.WaitsFor = "RESUME"
	case !g.Open:
		out.WaitsFor = "the gate: " + g.Reason
	default:
		out.WaitsFor = "a node that can be reached"
	}
	return out
}

func serverOf(s session.ServerLook) admin.Server {
	out := admin.Server{
		ID: s.ID, Database: s.Group.Database, User: s.Group.User, Node: s.Node, State: admin.ServerIdle, Remote: addressOf(s.Remote), Local: addressOf(s.Local),
		Connected: s.Made, Requested: s.Asked, CloseNeeded: s.CloseNeeded, Client: s.ClientID, PID: s.PID, TLS: s.TLS,
		Application: s.Application, Prepared: s.Prepared, Pinned: s.Pinned,
	}
	switch {
	case s.Active:
		out.State = admin.ServerActive
	case s.Canceling:
		out.State = admin.ServerBeingCanceled
	case s.Cleaning:
		out.State = admin.ServerTested
	}
	return out
}

func addressOf(a net.Addr) admin.Address {
	if t, ok := a.(*net.TCPAddr); ok {
		return admin.Address{Host: t.IP.String(), Port: t.Port}
	}
	return admin.Address{Host: "unix"}
}

// behind is the daemon as the console knows it.
type behind struct{ *Daemon }

var _ admin.Daemon = behind{}

// State implements admin.Daemon.
func (b behind) State(ctx context.Context) (api.State, error) { return backend(b).State(ctx) }

// Settings implements admin.Daemon.
func (b behind) Settings() []admin.Setting {
	return each(b.config().Settings(), func(s config.Setting) admin.Setting {
		return admin.Setting{Key: s.Key, Value: s.Value, Default: s.Default, Changeable: s.Reloadable}
	})
}

// Reload implements admin.Daemon.
func (b behind) Reload(by string) (api.ReloadResult, error) { return b.reload(by) }

// Audit implements admin.Daemon.
func (b behind) Audit(by, what string, err error) {
	fields := map[string]string{"action": what, "outcome": "accepted"}
	text := by + " asked to " + what + ": accepted"
	if err != nil {
		fields["outcome"] = "refused"
		text = by + " asked to " + what + ": refused: " + err.Error()
	}
	b.engine.Audit(by, text, fields)
}

// rights are who may use the console, by the configuration in force.
func (d *Daemon) rights() admin.Rights {
	p := d.config().Proxy
	return admin.Rights{Admins: p.AdminUsers, Stats: p.StatsUsers}
}

func (d *Daemon) buildConsole() {
	d.console = admin.New(admin.Options{Plane: plane{d}, Daemon: behind{d}, Rights: d.rights, Version: d.opt.Version, Log: d.log})
}
