package daemon

import (
	"github.com/pgtandem/pgtandem/engine/cluster"
	"github.com/pgtandem/pgtandem/engine/execute/steps"
	"github.com/pgtandem/pgtandem/proxyd/pool"
)

// engineGate is the pool's gate as the engine's steps see it.
type engineGate struct{ *pool.Gate }

var _ steps.Gate = engineGate{}

// Passing implements steps.Gate.
func (g engineGate) Passing() (open bool, node cluster.NodeID, term cluster.Term) {
	s := g.Status()
	return s.State == "open", cluster.NodeID(s.Node), cluster.Term(s.Term)
}
