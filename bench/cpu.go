package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuOf is the processor time of a process's threads, to the nanosecond. Threads
// that ended are not in it; Go keeps its threads.
func cpuOf(pid int) (total time.Duration) {
	files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "schedstat"))
	for _, file := range files {
		raw, _ := os.ReadFile(file)
		if f := strings.Fields(string(raw)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			total += time.Duration(ns)
		}
	}
	return total
}

func (p *pair) cpu() (total time.Duration) {
	for _, n := range p.nodes {
		total += cpuOf(n.cmd.Process.Pid)
	}
	return total
}

func (w *bareWay) cpu() (total time.Duration) {
	for _, p := range w.processes {
		total += cpuOf(p.cmd.Process.Pid)
	}
	return total
}

// loadCores keeps all cores busy with a process of the lowest priority (nice 19).
func loadCores(ctx context.Context) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "spin")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// runSpin is that process; it ends when its standard input does.
func runSpin() {
	for range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread() // a thread has a priority of its own
			if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
				os.Exit(1)
			}
			for {
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}
