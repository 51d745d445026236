package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// inLab starts a lab of its own with the program that was built, shoots in it
// and removes it.
func inLab(ctx context.Context, program, out string) (err error) {
	lab := func(ctx context.Context, args ...string) ([]byte, error) {
		c := exec.CommandContext(ctx, program, append([]string{"lab"}, args...)...)
		c.Stderr = os.Stderr
		c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
		b, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("%s lab %s: %w (is it built? make build)", program, args[0], err)
		}
		return b, nil
	}
	// The lab makes its own directory, since its servers must be able to enter.
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("pgtandem-shots-%d", os.Getpid()))
	fmt.Fprintln(os.Stderr, "starting a lab in", dir)
	defer func() {
		if _, e := lab(context.WithoutCancel(ctx), "destroy", "--dir", dir); e != nil && err == nil {
			err = e
		}
	}()
	if _, err := lab(ctx, "up", "--dir", dir, "--swap-method", "files"); err != nil {
		return err
	}
	status, err := lab(ctx, "status", "--dir", dir, "--json")
	if err != nil {
		return err
	}
	var l labStatus
	if err := json.Unmarshal(status, &l); err != nil {
		return fmt.Errorf("read the lab's status: %w", err)
	}
	return shootUnderLoad(ctx, l, out)
}

// labStatus is what is needed of a lab's status.
type labStatus struct {
	Socket   string `json:"socket"`
	Database string `json:"database"`
	User     string `json:"user"`
	Password string `json:"password"`
	Proxy    struct {
		Host string `json:"host"`
		Port int    `json:"port"`
	} `json:"proxy"`
}

// shootUnderLoad has some clients write meanwhile, because a cluster without
// clients is no sight.
func shootUnderLoad(ctx context.Context, l labStatus, out string) error {
	cfg, err := pgx.ParseConfig("")
	if err != nil {
		return err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = l.Proxy.Host, uint16(l.Proxy.Port), l.Database, l.User, l.Password
	cfg.RuntimeParams["application_name"] = "pictures"
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for i := range 8 {
		clients.Go(func() { write(ctx, cfg, 2_000_000_000+i) })
	}
	return shoot(ctx, l.Socket, out)
}

// write writes a row until the context ends. What fails is what the console
// shows, so it is tried again.
func write(ctx context.Context, cfg *pgx.ConnConfig, id int) {
	for ctx.Err() == nil {
		conn, err := pgx.ConnectConfig(ctx, cfg)
		for err == nil {
			_, err = conn.Exec(ctx, "INSERT INTO table1 VALUES ($1, now()::text) ON CONFLICT (id) DO UPDATE SET value = excluded.value", id)
			if e := pass(ctx, 25*time.Millisecond); e != nil {
				break
			}
		}
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
		_ = pass(ctx, 100*time.Millisecond)
	}
}
