package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/parley-p2p/parley"
)

// app is the program with what it touches outside itself.
type app struct {
	out, err io.Writer
	env      []string
	start    func(parley.Config) (node, error)
	open     func(url string, note func(error)) error // opens a browser
}

// node is a built node: *parley.Node.
type node interface {
	Run(ctx context.Context) error
}

// Exit codes.
const (
	exitOK    = 0
	exitFault = 1 // it did not work
	exitUsage = 2 // it was not asked right
)

// run runs one command line and gives the exit code. An error is told once.
func (a *app) run(args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(a.err, "parley:", line)
	}
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(a.err, "parley: see parley help")
		return exitUsage
	}
	var start startError
	if errors.As(err, &start) {
		return exitUsage
	}
	return exitFault
}

// usageError is a command line that can't be meant.
type usageError struct{ error }

func (a *app) rootCommand() *cobra.Command {
	root := a.serveCommand("parley")
	root.Long = "parley gives a web page peers instead of a server.\n\nWithout a command it serves the demo, or the folder given by --dir."
	root.Args = func(_ *cobra.Command, args []string) error { // the bare program takes commands, not folders
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q; to serve a folder: parley serve %s", args[0], args[0])}
		}
		return nil
	}
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.serveCommand("serve [DIR]"), a.starCommand(), a.tokenCommand(), a.versionCommand())
	return root
}

// args bounds the number of arguments, as a usage error.
func args(most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > most {
			return usageError{fmt.Errorf("%s: %q is too much", cmd.CommandPath(), args[most])}
		}
		return nil
	}
}
