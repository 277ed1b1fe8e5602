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
	"unsafe"
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

// keepAwake keeps all cores from sleeping with a process of the idle class,
// which runs only where nobody else wants to.
func keepAwake(ctx context.Context) (stop func(), err error) {
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
	const idleClass = 5 // SCHED_IDLE
	for range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread()
			var param struct{ priority int32 }
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, idleClass, uintptr(unsafe.Pointer(&param))); errno != 0 {
				os.Exit(1)
			}
			for {
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}
