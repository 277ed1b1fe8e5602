// Package main is a star for tests and benchmarks: every option of the library,
// those too that `parley star` has no flag for.
//
//	starserver '{"Port":0,"Refresh":1000000000,"Limits":{"Joins":-1}}'
//
// The argument is star.Options in JSON, times in nanoseconds. It prints
// "Listening on: <uri>", drains at SIGTERM, stops at once at a second one, and ends
// with its standard input, so that it never outlives who started it. A line "gc"
// there is answered by the bytes of the heap and the number of goroutines after a
// collection that gives back what is free; "heap FILE" and "cpu FILE" write profiles, the second from the last
// "cpu" on.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"

	"github.com/parley-p2p/parley/star"
)

func main() {
	fixed := flag.Bool("fixed-nonces", false, "every random part of a nonce is zeros")
	verbose := flag.Bool("debug", false, "log to standard error")
	certs := flag.String("certs", "", "write a certificate for loopback into this folder, and end")
	flag.Parse()
	if *certs != "" {
		if err := writeCerts(*certs); err != nil {
			fmt.Fprintln(os.Stderr, "starserver:", err)
			os.Exit(2)
		}
		return
	}
	if err := run(flag.Arg(0), *fixed, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "starserver:", err)
		os.Exit(2)
	}
}

func run(options string, fixed, verbose bool) error {
	o := star.Options{Host: "127.0.0.1"}
	if options != "" {
		d := json.NewDecoder(strings.NewReader(options))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil {
			return err
		}
	}
	if fixed {
		o.Nonces = zeros{}
	}
	if verbose {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	srv, err := star.New(o)
	if err != nil {
		return err
	}
	ctx, drain := context.WithCancel(context.Background())
	kill, stop := context.WithCancel(context.Background())
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() { // ends with the program
		<-signals
		drain()
		<-signals
		stop()
	}()
	go func() { // ends with the program
		commands(os.Stdin, os.Stdout)
		os.Exit(0)
	}()
	say(os.Stdout, "Listening on:", srv.URI())
	err = srv.RunUntil(ctx, kill)
	say(os.Stdout, "Rendezvous server stopped")
	return err
}

// say writes a line; who started the program and no longer listens needs none.
func say(out io.Writer, words ...any) { _, _ = fmt.Fprintln(out, words...) }

// commands serves what is asked on standard input until that ends.
func commands(in io.Reader, out io.Writer) {
	var profile *bytes.Buffer
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		verb, file, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch verb {
		case "gc":
			runtime.GC()
			debug.FreeOSMemory() // the second collection empties what the first only emptied half: pools
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			say(out, "heap", m.HeapAlloc, runtime.NumGoroutine())
			continue
		case "heap":
			var b bytes.Buffer
			if err = pprof.Lookup("heap").WriteTo(&b, 0); err == nil {
				err = os.WriteFile(file, b.Bytes(), 0o600)
			}
		case "cpu":
			if profile == nil {
				profile = &bytes.Buffer{}
				err = pprof.StartCPUProfile(profile)
				break
			}
			pprof.StopCPUProfile()
			err = os.WriteFile(file, profile.Bytes(), 0o600)
			profile = nil
		}
		say(out, "done", err)
	}
}

// zeros is a source of no randomness.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
