package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// stopTime is how long an orderly end may take (gateway.md §10).
const stopTime = 5 * time.Second

// signals gives a context that ends with the first INT, TERM or HUP. A second
// one, or five seconds, end the program at once. The returned function waits for
// the watcher.
func signals(parent context.Context, errOut io.Writer) (context.Context, func()) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithCancel(parent)
	came := make(chan os.Signal, 2)
	signal.Notify(came, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { watch(came, done, cancel, errOut, os.Exit) })
	return ctx, func() {
		signal.Stop(came)
		close(done)
		watcher.Wait()
		cancel()
	}
}

// watch cancels on the first signal and exits on the second or when time is up.
func watch(came <-chan os.Signal, done <-chan struct{}, cancel func(), errOut io.Writer, exit func(int)) {
	select {
	case <-came:
		cancel()
	case <-done:
		return
	}
	late := time.NewTimer(stopTime)
	defer late.Stop()
	select {
	case <-done:
	case s := <-came:
		fmt.Fprintf(errOut, "parley: %s again, so it stops at once\n", s)
		exit(exitFault)
	case <-late.C:
		fmt.Fprintf(errOut, "parley: not stopped in order within %s, so it stops at once\n", stopTime)
		exit(exitFault)
	}
}
