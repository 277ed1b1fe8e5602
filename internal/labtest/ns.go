//go:build linux

package labtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// space is a network namespace, held open by a descriptor.
type space struct {
	name string
	file *os.File
}

// ownSpace opens the namespace of the thread that calls.
func ownSpace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// newSpace makes an empty namespace.
func newSpace(name string) (*space, error) {
	s := &space{name: name}
	err := aside(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		s.file, err = ownSpace()
		return err
	})
	return s, err
}

// aside runs f on a thread of its own whose namespace f may change.
func aside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := ownSpace()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with this goroutine
		}
		done <- err
	}()
	return <-done
}

// within runs f in the namespace: the sockets that f makes are there, and the
// processes that f starts.
func (s *space) within(f func() error) error {
	return aside(func() error {
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", s.name, err)
		}
		return f()
	})
}

// start starts a program in the namespace. It is killed when this process ends.
func (s *space) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return s.within(cmd.Start)
}

// run runs a program to its end, with the namespaces of files as its descriptors
// 3 and on.
func (s *space) run(input string, files []*os.File, args ...string) error {
	_, err := s.output(input, files, args...)
	return err
}

// output is run, and gives what the program writes.
func (s *space) output(input string, files []*os.File, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...) //nolint:gosec // a tool that the test names
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = strings.NewReader(input), &out, &out, files
	if err := s.start(cmd); err != nil {
		return "", fmt.Errorf("in %s: %w", s.name, err)
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("in %s: %s: %w: %s%s", s.name, strings.Join(args, " "), err, out.String(), input)
	}
	return out.String(), nil
}

// dial connects to a literal address from the namespace.
func (s *space) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = s.within(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address) // one address: dialled on this thread
		return err
	})
	return c, err
}

// set writes a setting of the kernel, such as net/ipv4/ip_forward.
func (s *space) set(name, value string) error {
	return s.within(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0o600) })
}
