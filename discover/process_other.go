//go:build !linux && !darwin && !windows

package discover

import "errors"

// ProcessStart tells when a process started, where the system says so; here it
// doesn't.
func ProcessStart(int) (string, error) {
	return "", errors.New("this system doesn't tell when a process started")
}
