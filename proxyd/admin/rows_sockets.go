package admin

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// States of a client as PgBouncer names them: one whose server waits for it
// inside of a transaction is active too.
var clientStates = map[string]string{
	ClientIdle: "idle", ClientActive: "active", ClientInTx: "active", ClientWaiting: "waiting", ClientHeld: "waiting", ClientLogin: "login",
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// link writes what stands in the place of an object's address.
func link(kind string, id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", kind, id)
}

// moment is a time that may not have come yet.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// seconds and micros cut a duration in two, as PgBouncer shows one.
func seconds(d time.Duration) int { return int(d / time.Second) }
func micros(d time.Duration) int  { return int(d % time.Second / time.Microsecond) }

func clientSocket(c Client, state string) row {
	return row{"C", c.User, c.Database, "none", state, c.Remote.Host, c.Remote.Port, c.Local.Host, c.Local.Port,
		moment(c.Connected), moment(c.Requested), seconds(c.Wait), micros(c.Wait), 0,
		link("C", c.ID), link("S", c.Server), c.PID, c.TLS, c.Application, c.Prepared, c.ID}
}

func serverSocket(s Server, state string) row {
	return row{"S", s.User, s.Database, "none", state, s.Remote.Host, s.Remote.Port, s.Local.Host, s.Local.Port,
		moment(s.Connected), moment(s.Requested), 0, 0, bit(s.CloseNeeded),
		link("S", s.ID), link("C", s.Client), s.PID, s.TLS, s.Application, s.Prepared, s.ID}
}

func clientRows(v *View) []row {
	var out []row
	for _, c := range v.Clients {
		if c.State != ClientLogin { // a stranger's words; SHOW SOCKETS has them
			out = append(out, append(clientSocket(c, clientStates[c.State]), c.Node, c.Pinned, c.WaitsFor, c.Route))
		}
	}
	return out
}

func serverRows(v *View) []row {
	var out []row
	for _, s := range v.Servers {
		out = append(out, append(serverSocket(s, s.State), s.Node, s.Pinned))
	}
	return out
}

// noBuffers: the positions in PgBouncer's buffers have no meaning here.
func noBuffers(r row) row { return append(r, nil, nil, nil, nil, nil, nil, nil) }

func sockets(v *View, busyOnly bool) []row {
	var out []row
	for _, c := range v.Clients {
		state, busy := "cl_active", c.State != ClientIdle
		switch c.State {
		case ClientWaiting, ClientHeld:
			state = "cl_waiting"
		case ClientLogin:
			state = "cl_login"
		}
		if busy || !busyOnly {
			out = append(out, append(noBuffers(clientSocket(c, state)), c.Node, c.Pinned, c.WaitsFor))
		}
	}
	for _, s := range v.Servers {
		if s.State != ServerIdle || !busyOnly {
			out = append(out, append(noBuffers(serverSocket(s, "sv_"+s.State)), s.Node, s.Pinned, ""))
		}
	}
	return out
}

func socketRows(v *View) []row       { return sockets(v, false) }
func activeSocketRows(v *View) []row { return sockets(v, true) }

// poolID is what a pool is for.
type poolID struct{ database, user string }

// clientFigures are what SHOW POOLS counts of a pool's clients.
type clientFigures struct {
	active, waiting, held, pinned int
	oldest                        time.Duration
}

func countClients(v *View) map[poolID]*clientFigures {
	out := make(map[poolID]*clientFigures)
	for _, c := range v.Clients {
		if c.State == ClientLogin {
			continue
		}
		id := poolID{c.Database, c.User}
		f := out[id]
		if f == nil {
			f = &clientFigures{}
			out[id] = f
		}
		switch c.State {
		case ClientHeld:
			f.held++
			f.waiting++
		case ClientWaiting:
			f.waiting++
		default:
			f.active++
		}
		if c.State == ClientHeld || c.State == ClientWaiting {
			f.oldest = max(f.oldest, c.Wait)
		}
		f.pinned += bit(c.Pinned != "")
	}
	return out
}

// gateWord says what stands between a database's clients and the primary.
func (v *View) gateWord(database string) string {
	switch {
	case v.paused(database):
		return "paused"
	case v.Gate.Open:
		return "open"
	}
	return "closed"
}

func (v *View) paused(database string) bool {
	return v.PausedAll || slices.ContainsFunc(v.Databases, func(d Database) bool { return d.Name == database && d.Paused })
}

func poolRows(v *View) []row {
	clients := countClients(v)
	canceled := make(map[poolID]int)
	for _, s := range v.Servers {
		canceled[poolID{s.Database, s.User}] += bit(s.State == ServerBeingCanceled)
	}
	servers := make(map[poolID]Pool)
	for _, p := range v.Pools {
		servers[poolID{p.Database, p.User}] = p
		if clients[poolID{p.Database, p.User}] == nil {
			clients[poolID{p.Database, p.User}] = &clientFigures{}
		}
	}
	var out []row
	for _, id := range sortedPools(clients) {
		c, s := clients[id], servers[id]
		mode, gate := s.Mode, v.gateWord(id.database)
		size, least, reserve := any(s.PoolSize), any(s.MinPoolSize), any(s.ReserveSize)
		if Owns(id.database) {
			mode, gate, size, least, reserve = "statement", "", nil, nil, nil
		}
		oldest := max(c.oldest, s.OldestWait)
		out = append(out, row{id.database, id.user, c.active, c.waiting, 0, 0, s.Active - canceled[id], 0, canceled[id],
			s.Idle, 0, s.Cleaning, s.Connecting, seconds(oldest), micros(oldest), mode, nil, c.held, c.pinned, gate, size, least, reserve})
	}
	return out
}

func sortedPools[T any](m map[poolID]T) []poolID {
	ids := make([]poolID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b poolID) int {
		return cmp.Or(cmp.Compare(a.database, b.database), cmp.Compare(a.user, b.user))
	})
	return ids
}
