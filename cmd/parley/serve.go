package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/parley-p2p/parley"
)

// serveFlags are the flags of serve. One that was given wins over the
// environment and the file.
type serveFlags struct {
	dir, listen, data, auth, config string

	port, verbose                    int
	noOpen, linger, relay, noOpenOld bool
	connect, set                     []string
}

func (a *app) serveCommand(use string) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   use,
		Short: "serve a site: DIR/html, or DIR itself; the demo without one",
		Args:  args(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if f.dir != "" {
					return usageError{fmt.Errorf("serve %s or --dir %s, not both", args[0], f.dir)}
				}
				f.dir = args[0]
			}
			return a.serve(cmd, &f)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.dir, "dir", "", "the site's folder")
	flags.IntVarP(&f.port, "port", "p", 0, "this port and no other; 0 for any free one (default: the first free of 10000 to 10099)")
	flags.StringVar(&f.listen, "listen", "", "the address to listen on (default localhost)")
	flags.BoolVar(&f.noOpen, "no-open", false, "open no browser")
	flags.BoolVar(&f.noOpenOld, "noopen", false, "")
	_ = flags.MarkHidden("noopen") // the reference's name; the flag is there
	flags.BoolVar(&f.linger, "linger", false, "stay when the last page has left")
	flags.StringVar(&f.data, "data", "", "the data folder (default: one by the site's name)")
	flags.StringVar(&f.auth, "auth", "", `who may come in: "link", who has the launch link; "none", any program of this machine`)
	flags.StringArrayVar(&f.connect, "connect", nil, "keep a connection to this node: a multiaddr that ends in /p2p/ID; may be repeated")
	flags.BoolVar(&f.relay, "relay", false, "be a relay for nodes of your own")
	flags.StringVar(&f.config, "config", "", "a configuration file, instead of the site's")
	flags.StringArrayVar(&f.set, "set", nil, "any setting of the configuration, as p2p.mdns=false; may be repeated")
	flags.CountVarP(&f.verbose, "verbose", "v", "say more on stderr: -v what happens, -vv details")
	return cmd
}

// serve is the whole of the main job: configuration, node, signals.
func (a *app) serve(cmd *cobra.Command, f *serveFlags) error {
	cfg, warnings, err := a.configure(cmd, f)
	if err != nil {
		return err
	}
	if cfg.Site != nil {
		defer cfg.Site.Close()
	}
	cfg.Log = newLog(a.err, cfg.Behavior.Verbosity)
	for _, w := range warnings {
		fmt.Fprintln(a.err, "parley: note:", w)
	}
	cfg.Ready = func(s parley.Started) { fmt.Fprint(a.out, greeting(cfg, s)) }
	cfg.OpenBrowser = func(url string) error {
		err := a.open(url, a.noBrowser)
		if err != nil {
			a.noBrowser(err)
		}
		return err
	}
	n, err := a.start(cfg)
	if err != nil {
		return err
	}
	ctx, stop := signals(cmd.Context(), a.err)
	defer stop()
	if err := n.Run(ctx); err != nil {
		return err
	}
	if ctx.Err() == nil {
		fmt.Fprintln(a.out, "The last page has left, so parley ends. (--linger stays.)")
	}
	return nil
}

func (a *app) noBrowser(err error) {
	fmt.Fprintln(a.err, "parley: note: no browser was opened:", err)
}

// configure reads site, file, environment and flags, and checks the result.
func (a *app) configure(cmd *cobra.Command, f *serveFlags) (cfg parley.Config, warnings []string, err error) {
	s, err := openSite(f.dir)
	if err != nil {
		return cfg, nil, err
	}
	cfg, warnings, err = parley.LoadConfig(parley.ConfigSources{Site: s.FS(), File: f.config, Env: a.env})
	cfg.Site = s
	cfg.Version = version()
	if err == nil {
		err = f.apply(cmd, &cfg)
	}
	if err == nil {
		err = cfg.Validate()
	}
	if err != nil {
		s.Close()
		return cfg, nil, err
	}
	return cfg, append(warnings, cfg.Warnings()...), nil
}

// apply sets what was given on the command line.
func (f *serveFlags) apply(cmd *cobra.Command, cfg *parley.Config) error {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	for _, entry := range f.set {
		name, text, ok := strings.Cut(entry, "=")
		if !ok {
			return usageError{fmt.Errorf("--set %s: write NAME=VALUE", entry)}
		}
		if err := cfg.Set(name, text); err != nil {
			return usageError{fmt.Errorf("--set: %w", err)}
		}
	}
	if given("port") {
		cfg.Server.Port = f.port
		if f.port != 0 {
			cfg.Server.PortRange = 1
		}
	}
	for flag, field := range map[string]*string{"listen": &cfg.Server.Listen, "data": &cfg.Node.Data, "auth": &cfg.Gateway.Auth} {
		if given(flag) {
			*field = cmd.Flag(flag).Value.String()
		}
	}
	if given("no-open") || given("noopen") {
		cfg.Behavior.AutoOpenBrowser = !f.noOpen && !f.noOpenOld
	}
	if given("linger") {
		cfg.Behavior.Linger = f.linger
	}
	if given("connect") {
		cfg.P2P.Connect = f.connect
	}
	if given("relay") {
		cfg.Relay.Profile = "off"
		if f.relay {
			cfg.Relay.Profile = "own"
		}
	}
	if given("verbose") {
		cfg.Behavior.Verbosity = min(f.verbose, 3)
	}
	return nil
}

// greeting is what a person sees when the node has started.
func greeting(cfg parley.Config, s parley.Started) string {
	var b strings.Builder
	name := "no site"
	if cfg.Site != nil {
		name = cfg.Site.Name()
	}
	fmt.Fprintf(&b, "parley %s serves %s\n\n", cfg.Version, name)
	line := func(what, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-10s %s\n", what, value)
		}
	}
	line("open", s.LaunchURL)
	line("status", statusURL(s.URL))
	line("peer", s.Peer.String())
	pages, peers := addresses(s.Listening)
	line("listens on", strings.Join(pages, ", "))
	line("star", s.Star)
	for i, addr := range peers {
		what := ""
		if i == 0 {
			what = "for peers"
		}
		line(what, addr)
	}
	line("data", s.Data)
	switch {
	case cfg.Site == nil:
	case cfg.Behavior.Linger || cfg.Behavior.AutoExitTimeout == 0:
		b.WriteString("\nStop it with Ctrl-C.\n")
	default:
		fmt.Fprintf(&b, "\nIt ends %s after the last page was closed, or with Ctrl-C.\n", cfg.Behavior.AutoExitTimeout)
	}
	return b.String()
}

// addresses says what is listened on in few lines: first those for pages, then
// those for peers, one line an address of this machine. The dashboard has them
// whole.
func addresses(listening []string) (pages, peers []string) {
	ways := map[string][]string{}
	var order []string
	for _, addr := range listening {
		part := strings.Split(addr, "/")
		if part[0] != "" || len(part) < 5 { // no multiaddr: /ip4/1.2.3.4/tcp/80/…
			pages = append(pages, addr)
			continue
		}
		way := part[3] + "/" + part[4]
		for i, p := range part[5:] {
			if p == "certhash" || p == "p2p" {
				break
			}
			if p != "quic-v1" || i+6 >= len(part) || part[i+6] != "webtransport" {
				way += "/" + p
			}
		}
		if ways[part[2]] == nil {
			order = append(order, part[2])
		}
		ways[part[2]] = append(ways[part[2]], way)
	}
	for _, ip := range order {
		peers = append(peers, ip+": "+strings.Join(ways[ip], ", "))
	}
	return pages, peers
}

func statusURL(url string) string {
	if url == "" {
		return ""
	}
	return strings.TrimSuffix(url, "/") + "/_parley/"
}

// newLog makes the log on stderr: at 0 only what is wrong.
func newLog(w io.Writer, verbosity int) *slog.Logger {
	level := slog.LevelWarn
	switch {
	case verbosity == 1:
		level = slog.LevelInfo
	case verbosity >= 2:
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, AddSource: verbosity >= 3}))
}

// openSite opens the folder, or the demo for "".
func openSite(dir string) (*parley.Site, error) {
	if dir == "" {
		return parley.Demo()
	}
	return parley.OpenSite(dir)
}
