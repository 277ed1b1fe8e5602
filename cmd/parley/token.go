package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/parley-p2p/parley"
)

func (a *app) tokenCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "token [DIR]",
		Short: "print what programs send as Authorization: Bearer",
		Long: "Prints the bearer token of a site's node, which is in a file of its data folder.\n" +
			"Where several nodes of one site run, the further ones have the folders NAME-2, NAME-3…: name one with --data.",
		Args: args(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				f.dir = args[0]
			}
			cfg, _, err := a.configure(cmd, &f)
			if err != nil {
				return err
			}
			defer cfg.Site.Close()
			folder, err := parley.DataFolder(cfg.Node.Data, cfg.Site.Name())
			if err != nil {
				return err
			}
			token, err := parley.ReadToken(folder)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, token)
			return nil
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", "", "the site's folder")
	cmd.Flags().StringVar(&f.data, "data", "", "the data folder (default: one by the site's name)")
	cmd.Flags().StringVar(&f.config, "config", "", "a configuration file, instead of the site's")
	return cmd
}
