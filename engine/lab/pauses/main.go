// Command pauses measures what clients feel of each fault: it brings a lab up
// with the product's own health checks, lets clients write through proxyd,
// makes one fault after another, and prints the medians of several runs beside
// what is to be reached.
//
// It owns the lab it makes, and judges nothing but what its clients saw. It
// must never know how the engine comes to do what it does.
//
//	go run ./engine/lab/pauses [-runs 10] [-fault stopped,killed,...|wakings|jitter|commits] [-minutes 30] [-mode session]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgtandem/pgtandem/engine/drill"
	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/engine/lab/control"
	"github.com/pgtandem/pgtandem/engine/lab/fault"
)

type options struct {
	proxyd    string
	runs      int
	clients   int
	faults    string
	minutes   int
	percent   int
	jitter    time.Duration
	keep      bool
	mode      string
	takeovers int
	period    time.Duration
}

// errWrong: something was lost, or done that must not be. Being slow is not.
var errWrong = errors.New("a promise was broken")

func main() {
	var o options
	flag.StringVar(&o.proxyd, "proxyd", "bin/proxyd", "the daemon's program")
	flag.IntVar(&o.runs, "runs", 10, "how often each fault is made, interleaved; the median counts")
	flag.IntVar(&o.clients, "clients", 4, "clients that write; of commits at least one of each shape")
	flag.StringVar(&o.faults, "fault", "", "which faults, with commas between; all but jitter when empty: "+strings.Join(names(), ", ")+", wakings (frozen alone), jitter, commits")
	flag.IntVar(&o.minutes, "minutes", 30, "how long jitter lasts, and commits at most")
	flag.IntVar(&o.takeovers, "takeovers", 20, "of commits: kills that the standby takes over after, percent; after the others the server restarts in place")
	flag.IntVar(&o.percent, "loss", 1, "of jitter: packets dropped, percent; as root only")
	flag.DurationVar(&o.jitter, "delay", 200*time.Millisecond, "of jitter: the longest random delay")
	flag.StringVar(&o.mode, "mode", "transaction", "pool mode: session or transaction")
	flag.DurationVar(&o.period, "period", time.Second, "of the health checks; the product's default is 1s, a lab's own is quicker")
	flag.BoolVar(&o.keep, "keep", false, "leave the lab's directory where it is, also when all went well")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pauses:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.runs < 1 || o.clients < 1 || o.minutes < 1 {
		return errors.New("-runs, -clients and -minutes are at least 1")
	}
	if o.faults == "jitter" {
		return onALab(ctx, o, shaky(), func(r *rig) error { return r.shake(ctx) })
	}
	if o.faults == "commits" {
		return onALab(ctx, o, lab.PlainNetwork, func(r *rig) error { return r.commits(ctx) })
	}
	chosen, err := choose(o.faults)
	if err != nil {
		return err
	}
	return onALab(ctx, o, lab.PlainNetwork, func(r *rig) error { return r.measure(ctx, chosen) })
}

// rig is a lab with all that is needed to measure on it.
type rig struct {
	options
	lab     *lab.Lab
	faults  *fault.Faults
	control *control.Client
	target  drill.Target
	bouts   int
	wrong   []string
	shift   sync.RWMutex // of commits: held for reading by who is in a transaction
}

// onALab makes a lab, does something with it and removes it. Where that went
// wrong the lab is stopped and kept, because its logs say why.
func onALab(ctx context.Context, o options, network lab.Network, do func(*rig) error) (err error) {
	// Where the servers' account can reach it, unlike most temporary directories.
	dir, err := os.MkdirTemp("", "pgtpause")
	if err != nil {
		return fmt.Errorf("make a directory for the lab: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open the lab's directory to its servers: %w", err)
	}
	if err := os.Setenv("PGTANDEM_LABS", filepath.Join(dir, "labs")); err != nil {
		return fmt.Errorf("keep the lab to ourselves: %w", err)
	}
	o.proxyd, err = filepath.Abs(o.proxyd)
	if err != nil {
		return fmt.Errorf("find proxyd: %w", err)
	}
	opt := lab.Options{Dir: filepath.Join(dir, "lab"), AnyPorts: true, Network: network, Proxyd: o.proxyd, PoolMode: o.mode, NoDamping: true, Period: o.period}
	progress("bringing a lab up in %s", opt.Dir)
	l, err := lab.Up(ctx, opt)
	if err != nil {
		return errors.Join(err, end(opt.Dir, dir, o.keep))
	}
	s := l.Status()
	r := &rig{options: o, lab: l, faults: fault.New(l, o.proxyd), control: control.New(l.Socket()),
		target: drill.Target{Host: s.Proxy.Host, Port: s.Proxy.Port, Database: s.Database, User: s.User, Password: s.Password}}
	defer func() {
		r.faults.Close()
		r.control.Close()
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, r.faults.Heal(down), l.Down(down), end(opt.Dir, dir, o.keep || err != nil))
	}()
	if err := do(r); err != nil {
		return err
	}
	if len(r.wrong) > 0 {
		return fmt.Errorf("%w: %s", errWrong, strings.Join(r.wrong, "; "))
	}
	return nil
}

// end removes what was made for the lab, or says where it is.
func end(lab, dir string, keep bool) error {
	if keep {
		progress("the lab is kept, stopped, in %s", lab)
		return nil
	}
	return errors.Join(destroy(lab), os.RemoveAll(dir))
}

func destroy(dir string) error {
	l, err := lab.Open(dir)
	if errors.Is(err, lab.ErrNoLab) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return l.Destroy(ctx)
}

var began = time.Now()

// progress tells on standard error what takes its time.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
