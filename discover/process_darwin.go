package discover

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ProcessStart tells when a process started, as text that is only good for
// comparing: with the PID it names one process for good. It is an error where
// there is no such process.
func ProcessStart(pid int) (string, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return "", fmt.Errorf("read process %d: %w", pid, err)
	}
	at := info.Proc.P_starttime
	return fmt.Sprintf("%d.%06d", at.Sec, at.Usec), nil
}
