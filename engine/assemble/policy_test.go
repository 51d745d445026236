package assemble

import (
	"reflect"
	"testing"
	"time"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/cluster"
)

// TestPolicyIsWhatTheFileSays writes every policy differently from its default.
func TestPolicyIsWhatTheFileSays(t *testing.T) {
	c, err := config.Parse("p.toml", []byte(`
[cluster]
name = "shop"
[proxy]
hold_timeout = "41s"
[health_check]
period = "300ms"
timeout = "700ms"
retries = 5
[failover]
policy = "manual"
when_not_in_sync = "promote"
when_standby_lost = "wait"
rejoin = "manual"
broken_path = "hold"
damping = "3m"
drain_limit = "9s"
[sync]
swap_method = "files"
method = "ANY"
standbys = 2
async_limit = "2h"
[[node]]
name = "a"
host = "10.0.0.1"
data_directory = "/data"
[[node]]
name = "b"
host = "10.0.0.2"
data_directory = "/data"
[[node]]
name = "c"
host = "10.0.0.3"
data_directory = "/data"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.Policy{
		Cluster: "shop", Nodes: Nodes(c),
		Failover: cluster.Manual, Rejoin: cluster.Manual, Degrade: cluster.DegradeNever, UnsafePromote: true,
		BrokenPath: cluster.PathHold, AsyncLimit: 2 * time.Hour, DampingWindow: 3 * time.Minute,
		SwapMethod: cluster.SwapFiles, SyncK: 2, SyncMethod: "ANY", Slots: true,
		CheckPeriod: 300 * time.Millisecond, CheckTimeout: 700 * time.Millisecond, CheckRetries: 5,
		HoldTimeout: 41 * time.Second, DrainLimit: 9 * time.Second,
	}
	if got := Policy(c); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	v := reflect.ValueOf(want)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s of the policy is set by no key", v.Type().Field(i).Name)
		}
	}
}

// TestPolicyOfAnEmptyFile: what is not written is the promise that nothing
// acknowledged is lost.
func TestPolicyOfAnEmptyFile(t *testing.T) {
	p := Policy(config.Default())
	if p.BrokenPath != cluster.PathPromote || p.DampingWindow != 10*time.Minute || p.AsyncLimit != 0 || p.UnsafePromote {
		t.Errorf("broken path %q, damping %s, async limit %s, unsafe promotion %v", p.BrokenPath, p.DampingWindow, p.AsyncLimit, p.UnsafePromote)
	}
}
