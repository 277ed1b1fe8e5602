package discover

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// ProcessStart tells when a process started, as text that is only good for
// comparing: with the PID it names one process for good. It is an error where
// there is no such process.
func ProcessStart(pid int) (string, error) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return "", fmt.Errorf("open process %d: %w", pid, err)
	}
	defer windows.CloseHandle(h)
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &created, &exited, &kernel, &user); err != nil {
		return "", fmt.Errorf("read process %d: %w", pid, err)
	}
	return fmt.Sprint(created.Nanoseconds()), nil
}
