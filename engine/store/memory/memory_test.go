package memory_test

import (
	"testing"

	"github.com/pgtandem/pgtandem/engine/store"
	"github.com/pgtandem/pgtandem/engine/store/memory"
	"github.com/pgtandem/pgtandem/engine/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return memory.New(10) }, nil)
}
