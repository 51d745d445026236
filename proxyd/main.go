// Command proxyd is the daemon of pgtandem: it keeps a pair of PostgreSQL
// servers alive and carries their clients.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/proxyd/daemon"
)

// version is stamped by the linker.
var version = "devel"

// Exit codes. The unit does not restart after exitUsage: a person must mend
// the configuration.
const (
	exitDone  = 0
	exitFault = 1
	exitUsage = 2
)

var levels = []string{"debug", "info", "warn", "error"}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	f := flag.NewFlagSet("proxyd", flag.ContinueOnError)
	f.SetOutput(errs)
	path := f.String("config", config.FindConfig(), "the configuration `file`")
	check := f.Bool("check-config", false, "tell what is wrong with the configuration, and exit")
	show := f.Bool("version", false, "print the version, and exit")
	pgpool := f.String("import-pgpool", "", "print the configuration that a pgpool.conf `file` comes to, and exit")
	level := f.String("log-level", "", "debug, info, warn or error, in place of log.level")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	case *level != "" && !slices.Contains(levels, *level):
		fmt.Fprintf(errs, "--log-level %q: allowed are %s\n", *level, strings.Join(levels, ", "))
		return exitUsage
	case f.NArg() > 0:
		fmt.Fprintf(errs, "proxyd takes no arguments, found %q; see proxyd --help\n", f.Arg(0))
		return exitUsage
	case *show:
		fmt.Fprintln(out, "proxyd", version)
		return exitDone
	case *pgpool != "":
		return importPgpool(*pgpool, out, errs)
	}
	c, err := daemon.Load(*path)
	if err != nil {
		fmt.Fprintln(errs, err)
		return exitUsage
	}
	if *check {
		fmt.Fprintln(out, "ok")
		return exitDone
	}
	assemble.ForgetLibpq()
	return serve(c, *level, errs)
}

// importPgpool prints the TOML on out and what a person should know on errs.
func importPgpool(path string, out, errs io.Writer) int {
	file, err := os.Open(path)
	if err != nil {
		fmt.Fprintln(errs, err)
		return exitUsage
	}
	defer func() { _ = file.Close() }() // it was only read
	text, notes, err := config.ImportPgpool(file, path)
	if err != nil {
		fmt.Fprintln(errs, err)
		return exitUsage
	}
	for _, n := range notes {
		fmt.Fprintln(errs, n)
	}
	fmt.Fprint(out, text)
	return exitDone
}

func serve(c *config.Config, logLevel string, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	if err := daemon.Run(ctx, daemon.Options{Config: c, Version: version, Log: errs, LogLevel: logLevel, Reload: reload}); err != nil {
		fmt.Fprintln(errs, "proxyd:", err)
		return exitFault
	}
	return exitDone
}
