package discover

import (
	"bytes"
	"fmt"
	"os"
)

// ProcessStart tells when a process started, as text that is only good for
// comparing: with the PID it names one process for good. It is an error where
// there is no such process.
func ProcessStart(pid int) (string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("read process %d: %w", pid, err)
	}
	// pid (name) state … : the name may hold spaces and brackets; field 22 is the
	// start in ticks after boot, the 20th after the name.
	if i := bytes.LastIndexByte(raw, ')'); i >= 0 {
		if fields := bytes.Fields(raw[i+1:]); len(fields) > 19 {
			return string(fields[19]), nil
		}
	}
	return "", fmt.Errorf("process %d: no start time in its status", pid)
}
