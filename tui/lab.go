package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func labCommands() []*cobra.Command { return nil }

// labSocket is the control socket of the only running lab.
func labSocket() (string, error) { return "", errors.New("no lab is running") }
