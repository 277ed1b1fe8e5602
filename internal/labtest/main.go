//go:build linux

package labtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// inUserSpace tells a test binary that it runs in a user namespace already.
const inUserSpace = "PARLEY_LAB_USER_NAMESPACE"

// Main is the TestMain of tests that use the lab. Who isn't root becomes so in a
// user namespace. Where neither works, or a tool is missing, the tests fail: a
// lab that is left out in silence proves nothing. m is the *testing.M, or what wraps it.
func Main(m interface{ Run() int }) {
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // where others than root have none of these
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			fail(fmt.Errorf("%w: install iproute2 and nftables", err))
		}
	}
	if s, err := newSpace("trial"); err == nil {
		_ = s.file.Close()
		os.Exit(m.Run())
	} else if os.Getenv(inUserSpace) != "" {
		fail(err)
	}
	os.Exit(again())
}

// again runs this program as root of a user namespace, and gives its exit code.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inUserSpace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	own := func(id int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{HostID: id, Size: 1}} }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: own(os.Getuid()), GidMappings: own(os.Getgid()), Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		fail(fmt.Errorf("make a user namespace: %w", err))
	}
	return cmd.ProcessState.ExitCode()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "labtest: the network lab needs root, or user namespaces:", err)
	os.Exit(1)
}
