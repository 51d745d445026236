// Package labcmd is the command "pgtandem lab", and the one place of the
// console that knows of the lab.
package labcmd

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pgtandem/pgtandem/engine/lab"
	"github.com/pgtandem/pgtandem/tui/batch"
)

// DefaultSocket is the control socket of the only running lab.
func DefaultSocket() (string, error) { return lab.SocketOfOnly() }

// Command is "lab" with its subcommands.
func Command() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "lab",
		Short: "a real cluster on this machine, to try things on",
		Long: "A lab is real PostgreSQL servers, an sshd for each, and proxyd, all on this machine and as an\n" +
			"unprivileged user (as root: postgres). Its database test1 belongs to role test1, password test1.",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(c *cobra.Command, _ []string) error { return c.Help() },
		// Whoever writes --dir "" had a variable in mind that was not set; the
		// default would be another lab than the one that is meant.
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if f := c.Flag("dir"); f.Changed && dir == "" {
				return &batch.Error{Code: batch.ExitUsage, Err: fmt.Errorf("--dir is empty: name the lab's directory, or leave --dir out for %s", lab.Default())}
			}
			return nil
		},
	}
	c.PersistentFlags().StringVar(&dir, "dir", "", "the lab's directory (default "+lab.Default()+")")
	c.AddCommand(up(&dir), down(&dir), status(&dir), destroy(&dir))
	return c
}

func up(dir *string) *cobra.Command {
	var opt lab.Options
	var asJSON bool
	c := &cobra.Command{
		Use: "up", Short: "make the lab, or start one that is down", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error {
			opt.Dir = *dir
			opt.Progress = func(line string) { fmt.Fprintln(c.ErrOrStderr(), line) }
			l, err := lab.Up(c.Context(), opt)
			if err != nil {
				return err
			}
			return show(c.OutOrStdout(), l, asJSON)
		},
	}
	c.Flags().Var(count{&opt.Nodes, 2, 5}, "nodes", "how many servers, 2 to 5; of a new lab (default 2)")
	c.Flags().Var(choice{&opt.SwapMethod, []string{"alter_system", "files"}}, "swap-method", "how sync and async are swapped: alter_system or files; of a new lab (default alter_system)")
	c.Flags().Var(choice{&opt.PoolMode, []string{"session", "transaction"}}, "pool-mode", "session or transaction; of a new lab (default transaction)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the lab as JSON")
	return c
}

func down(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "stop everything in the lab; its data stays", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			if err := l.Down(c.Context()); err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "the lab is down; its data is kept in", l.Dir)
			return nil
		},
	}
}

func destroy(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "destroy", Short: "stop the lab and remove its directory", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			if err := l.Destroy(c.Context()); err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "the lab is gone:", l.Dir)
			return nil
		},
	}
}

func status(dir *string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "where the lab is and what of it runs", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			return show(c.OutOrStdout(), l, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func show(w io.Writer, l *lab.Lab, asJSON bool) error {
	s := l.Status()
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	state := func(pid int) string {
		if pid == 0 {
			return "stopped"
		}
		return fmt.Sprintf("runs, pid %d", pid)
	}
	fmt.Fprintf(w, "lab        %s\nproxyd     %s\nsocket     %s\nclients    postgresql://%s:%s@%s:%d/%s\n",
		s.Dir, state(s.ProxydPID), s.Socket, s.User, s.Password, s.Proxy.Host, s.Proxy.Port, s.Database)
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%-10s %s:%d, ssh port %d, %s\n", n.Name, n.Host, n.Port, n.SSHPort, state(n.PID))
	}
	return nil
}
