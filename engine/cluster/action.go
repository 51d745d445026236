package cluster

// Action names what a decision asks for and what a plan is for.
type Action string

// Actions.
const (
	Promote    Action = "promote"    // make a standby the primary, the old one being lost or given up
	Switchover Action = "switchover" // hand over cleanly
	SetMode    Action = "set-mode"   // swap sync and async, asked for by a person
	Degrade    Action = "degrade"    // stop waiting for standbys that are gone
	Restore    Action = "restore"    // wait again for standbys that are back
	Rejoin     Action = "rejoin"     // bring a node back as a standby
	GiveSlot   Action = "slot"       // give a standby its replication slot, and tidy those that are left behind
	Adopt      Action = "adopt"      // record a healthy cluster for the first time
	Fence      Action = "fence"      // stop a node that must not serve
	Reopen     Action = "reopen"     // open the gate to the recorded primary
	Restart    Action = "restart"    // start the primary again that we stopped ourselves
	Provision  Action = "provision"  // set hosts up
	Drill      Action = "drill"      // rehearse a failure
)
