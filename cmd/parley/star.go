package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/parley-p2p/parley"
)

// starFlag is a flag of parley star: what it sets, and the variable of the
// reference that sets it too.
type starFlag struct {
	name, short, env string
	key              string // of the configuration
	usage            string
	off              bool // a switch that turns the key off
	millis           bool // a number of milliseconds
}

// starFlags are those of docs/spec/star.md §9.1. The camel-case ones, and the
// variables, are the reference's.
var starFlags = []starFlag{
	{name: "port", short: "p", env: "PORT", key: "star.port", usage: "the port; 0 for any free one"},
	{name: "host", env: "HOST", key: "star.host", usage: "the address to listen on"},
	{name: "key", env: "KEY", key: "star.key", usage: "the TLS key, a PEM file"},
	{name: "cert", env: "CERT", key: "star.cert", usage: "the TLS certificate with its chain, a PEM file"},
	{name: "pfx", env: "PFX", key: "star.pfx", usage: "key and certificate, a PKCS#12 file"},
	{name: "passphrase", env: "PFX_PASSPHRASE", key: "star.passphrase", usage: "of the PKCS#12 file or the key; better given as PFX_PASSPHRASE"},
	{name: "acme", key: "star.acme", usage: "host names to get certificates for, from Let's Encrypt; the server must be reached at port 443"},
	{name: "acme-cache", key: "star.acmeCache", usage: "the folder that keeps those certificates (default: among the user's data)"},
	{name: "disableCryptoChallenge", env: "DISABLE_CRYPTO_CHALLENGE", key: "star.challenge", off: true, usage: "let anybody join as anybody"},
	{name: "disableStrictMultiaddr", env: "DISABLE_STRICT_MULTIADDR", key: "star.strict", off: true, usage: "take addresses that are not those of stars"},
	{name: "disableMetrics", env: "DISABLE_METRICS", key: "star.metrics", off: true, usage: "no metrics on the main port"},
	{name: "metrics-allow", key: "star.metricsAllow", usage: "networks that may read the metrics on the main port, besides this machine"},
	{name: "refreshPeerListIntervalMS", key: "star.refresh", millis: true, usage: "milliseconds between two announcements of a member (default 10000)"},
	{name: "names", key: "star.names", usage: "host names of this star, which are equal in a look-up"},
	{name: "origins", key: "star.origins", usage: "pages that may connect, as https://app.example (default all)"},
	{name: "trusted-proxies", key: "star.trustedProxies", usage: "networks of reverse proxies whose forwarding headers count"},
	{name: "announce", key: "star.announce", usage: "whom a member hears of: all, sample or off"},
	{name: "policy", key: "star.policy", usage: "limits of bytes, time and rate: open (none) or public"},
	{name: "drain", key: "star.drain", usage: "how long streams may go on after a signal"},
	{name: "cluster", key: "star.cluster", usage: "NATS servers that several stars of one name share, as nats://nats:4222 or tls://nats:4222"},
	{name: "cluster-name", key: "star.clusterName", usage: "stars of one name in NATS belong together"},
	{name: "cluster-url", key: "star.clusterURL", usage: "how the other stars reach this one, as http://10.0.0.7:9090 (default: its port at the address that NATS sees)"},
	{name: "cluster-creds", key: "star.clusterCreds", usage: "the credentials of the NATS user, a .creds file or the seed of an nkey"},
	{name: "cluster-ca", key: "star.clusterCA", usage: "roots for NATS and the other stars beside the system's, a PEM file"},
	{name: "cluster-cert", key: "star.clusterCert", usage: "a certificate for NATS, a PEM file"},
	{name: "cluster-key", key: "star.clusterKey", usage: "its key, a PEM file"},
	{name: "admin", key: "star.admin", usage: "the address of metrics and health; empty for none"},
}

// starCommand is parley star and parley star health.
func (a *app) starCommand() *cobra.Command {
	var config string
	var set []string
	var verbose int
	cmd := &cobra.Command{
		Use:   "star",
		Short: "run a star: a meeting point for peers that reach nothing but a web server",
		Long: "Runs a star server (docs/manual.md). Peers find each other there and, where nothing else works,\n" +
			"have their streams carried. It works with clients of libp2p-websocket-star unchanged.\n\n" +
			"Every setting is a flag, a variable or a key of [star] in a configuration file; the first counts.\n" +
			"A variable is the key's name, as PARLEY_STAR_TRUSTEDPROXIES, or the original's where one is named below.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.starConfig(cmd.Flags(), config, set)
			if err != nil {
				return startError{err}
			}
			return a.runStar(cmd.Context(), cfg, verbose)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	def := parley.DefaultConfig()
	for _, f := range starFlags {
		usage := f.usage
		if f.env != "" {
			usage += " [" + f.env + "]"
		}
		switch text, _ := def.Get(f.key); {
		case f.off:
			flags.Bool(f.name, false, usage)
		case f.millis:
			flags.String(f.name, "", usage)
		default:
			flags.StringP(f.name, f.short, text, usage)
		}
	}
	flags.StringVar(&config, "config", "", "a configuration file with a section [star]")
	flags.StringArrayVar(&set, "set", nil, "any setting, as star.limits.sessions=100; may be repeated")
	flags.CountVarP(&verbose, "verbose", "v", "say more on stderr: -v what happens, -vv details")
	cmd.AddCommand(a.healthCommand())
	return cmd
}

// startError is a start that failed: the reference exits with 2 then.
type startError struct{ error }

func (e startError) Unwrap() error { return e.error }

// starConfig reads file, variables and flags.
func (a *app) starConfig(flags *pflag.FlagSet, file string, set []string) (parley.StarConfig, error) {
	cfg, warnings, err := parley.LoadConfig(parley.ConfigSources{File: file, Env: a.env})
	if err != nil {
		return cfg.Star, err
	}
	for _, w := range warnings {
		fmt.Fprintln(a.err, "parley: note:", w)
	}
	for _, f := range starFlags {
		if err := a.starSetting(&cfg, flags, f); err != nil {
			return cfg.Star, err
		}
	}
	for _, entry := range set {
		name, text, ok := strings.Cut(entry, "=")
		if !ok {
			return cfg.Star, fmt.Errorf("--set %s: write NAME=VALUE", entry)
		}
		if err := cfg.Set(name, text); err != nil {
			return cfg.Star, fmt.Errorf("--set: %w", err)
		}
	}
	return cfg.Star, cfg.Star.Validate()
}

// starSetting sets what a flag says, or else the reference's variable where
// parley's own is not set.
func (a *app) starSetting(cfg *parley.Config, flags *pflag.FlagSet, f starFlag) error {
	text, from := "", ""
	own := "PARLEY_" + strings.ToUpper(strings.ReplaceAll(f.key, ".", "_")) // keys that the reference has too are one word
	switch value, given := a.variable(f.env); {
	case flags.Changed(f.name):
		text, from = flags.Lookup(f.name).Value.String(), "--"+f.name
	case given && f.env != "" && !a.has(own) && (value != "" || f.off):
		text, from = value, f.env+" in the environment"
		if f.off {
			text = a.isOn(f.env, value)
		}
	default:
		return nil
	}
	switch {
	case f.off:
		off, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%s: %q is not true or false", from, text)
		}
		text = strconv.FormatBool(!off)
	case f.millis:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s: %q is not a number of milliseconds", from, text)
		}
		text = (time.Duration(n) * time.Millisecond).String()
	}
	if err := cfg.Set(f.key, text); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// isOn reads a switch of the reference, which takes any value for on.
func (a *app) isOn(name, value string) string {
	switch value {
	case "":
		return "false"
	case "0", "false", "no":
		fmt.Fprintf(a.err, "parley: note: %s=%s is off here; the original would take it for on\n", name, value)
		return "false"
	}
	return "true"
}

func (a *app) variable(name string) (value string, given bool) {
	for _, entry := range a.env {
		if n, v, _ := strings.Cut(entry, "="); n == name {
			value, given = v, true
		}
	}
	return value, given
}

func (a *app) has(name string) bool { _, given := a.variable(name); return given }

// runStar serves until a signal, then drains; a second signal stops at once.
func (a *app) runStar(parent context.Context, cfg parley.StarConfig, verbose int) error {
	srv, err := parley.NewStar(cfg, newLog(a.err, verbose), version())
	if err != nil {
		return startError{err}
	}
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := context.WithCancel(parent)
	defer stop()
	kill, stopNow := context.WithCancel(parent)
	defer stopNow()
	came := make(chan os.Signal, 2)
	signal.Notify(came, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(came)
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { watchStar(came, done, stop, stopNow, a.err, os.Exit) })
	defer watcher.Wait()
	defer close(done)
	fmt.Fprintln(a.out, "Listening on:", srv.URI())
	if err := srv.RunUntil(ctx, kill); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "Rendezvous server stopped")
	return nil
}

// lastWords is how long a star that was told to stop at once may take to say so.
const lastWords = time.Second

// watchStar drains on the first signal, stops on the second, and exits when even
// that takes too long.
func watchStar(came <-chan os.Signal, done <-chan struct{}, drain, stop func(), errOut io.Writer, exit func(int)) {
	for _, act := range []func(){drain, stop} {
		select {
		case <-came:
			act()
		case <-done:
			return
		}
	}
	late := time.NewTimer(lastWords)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		fmt.Fprintln(errOut, "parley: told to stop twice, so it stops at once")
		exit(exitOK)
	}
}

// healthCommand asks a star of this machine how it is: for containers, which
// have no shell.
func (a *app) healthCommand() *cobra.Command {
	def := parley.DefaultConfig()
	admin, _ := a.variable("PARLEY_STAR_ADMIN")
	if admin == "" {
		admin = def.Star.Admin
	}
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "ask a star of this machine whether it answers; exit code 0 or 1",
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			text, err := askHealth(admin, path)
			if err == nil {
				fmt.Fprintln(a.out, text)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&admin, "admin", admin, "the address given to parley star")
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it takes new sessions")
	return cmd
}

// healthTime is shorter than what container runtimes wait.
const healthTime = 3 * time.Second

func askHealth(admin, path string) (string, error) {
	host, port, err := net.SplitHostPort(admin)
	if err != nil {
		return "", usageError{fmt.Errorf("--admin %q is no address such as 127.0.0.1:9091", admin)}
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	client := &http.Client{Timeout: healthTime, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + net.JoinHostPort(host, port) + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(text)))
	}
	return strings.TrimSpace(string(text)), err
}
