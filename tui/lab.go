package main

import (
	"github.com/spf13/cobra"

	"github.com/pgtandem/pgtandem/tui/labcmd"
)

func labCommands() []*cobra.Command { return []*cobra.Command{labcmd.Command()} }

// labSocket is the control socket of the only running lab.
func labSocket() (string, error) { return labcmd.DefaultSocket() }
