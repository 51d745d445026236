package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/pgtandem/pgtandem/tui/labcmd"
)

// inLab starts a lab of its own, shoots in it and removes it.
func inLab(ctx context.Context, out string) (err error) {
	dir, err := os.MkdirTemp("", "pgtandem-shots-")
	if err != nil {
		return err
	}
	dir += "/lab"
	fmt.Fprintln(os.Stderr, "starting a lab in", dir)
	if _, err := lab(ctx, "up", "--dir", dir, "--swap-method", "files"); err != nil {
		return err
	}
	defer func() {
		if _, e := lab(context.WithoutCancel(ctx), "destroy", "--dir", dir); e != nil && err == nil {
			err = e
		}
	}()
	status, err := lab(ctx, "status", "--dir", dir, "--json")
	if err != nil {
		return err
	}
	var l struct {
		Socket string `json:"socket"`
	}
	if err := json.Unmarshal(status, &l); err != nil {
		return fmt.Errorf("read the lab's status: %w", err)
	}
	return shoot(ctx, l.Socket, out)
}

func lab(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	c := labcmd.Command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(os.Stderr)
	if err := c.ExecuteContext(ctx); err != nil {
		return nil, fmt.Errorf("lab %s: %w", args[0], err)
	}
	return out.Bytes(), nil
}
