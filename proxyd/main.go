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
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pgtandem/pgtandem/config"
	"github.com/pgtandem/pgtandem/engine/assemble"
	"github.com/pgtandem/pgtandem/proxyd/daemon"
	"github.com/pgtandem/pgtandem/proxyd/handover"
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
	inherited, err := handover.Inherit()
	if err != nil {
		fmt.Fprintln(errs, "proxyd:", err)
		return exitFault
	}
	assemble.ForgetLibpq()
	return serve(daemon.Options{Config: c, Version: version, Log: errs, LogLevel: *level, Program: program(), Inherited: inherited}, errs)
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

// program is how this process was started. The path and not the file: the one
// that lies there later is to follow.
func program() []string {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil
	}
	return append([]string{path}, os.Args[1:]...)
}

func serve(o daemon.Options, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	reload, upgrade := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	signal.Notify(upgrade, syscall.SIGUSR2)
	defer signal.Stop(upgrade)
	o.Reload, o.Upgrade = reload, upgrade
	if err := daemon.Run(ctx, o); err != nil {
		fmt.Fprintln(errs, "proxyd:", err)
		return exitFault
	}
	return exitDone
}
