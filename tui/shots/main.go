// Command shots draws pictures of the console: it starts a lab of its own (or
// takes a running daemon by -socket), plays the real console on it as a person
// would, and draws what it shows as SVG and PNG.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/tui/fixture"
)

func main() {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "shots:", err)
		os.Exit(1)
	}
}

func start() error {
	out := flag.String("out", "screenshots", "the directory that the pictures are written into")
	socket := flag.String("socket", "", "the control socket of a running lab, which will see a drill and a promotion; default: a lab of its own")
	fixtures := flag.Bool("fixtures", false, "draw a made-up cluster instead of a real one")
	program := flag.String("pgtandem", "bin/pgtandem", "the program that starts the lab, with proxyd beside it")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is too much", flag.Args())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("the pictures took more than ten minutes"))
	defer cancel()
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	switch {
	case *fixtures:
		return madeUp(ctx, *out)
	case *socket != "":
		return shoot(ctx, *socket, *out)
	}
	return inLab(ctx, *program, *out)
}

func madeUp(ctx context.Context, out string) error {
	dir, err := os.MkdirTemp("", "shots-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	socket := filepath.Join(dir, "s")
	d, err := fixture.Serve(socket, fixture.Options{Now: time.Now, Pace: 300 * time.Millisecond})
	if err != nil {
		return err
	}
	defer d.Close()
	return shoot(ctx, socket, out)
}
