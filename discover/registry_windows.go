//go:build windows

package discover

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// privateToUser is true: the folders of a user are private by their access
// lists, which modes don't show.
func privateToUser(fs.FileInfo) bool { return true }

func openPrivate(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return os.Open(path)
}

// lockedAt is a byte that no file reaches: locks of this system keep others
// from reading what they cover.
const lockedAt = 1 << 30

func lockFile(f *os.File, exclusive bool) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	at := windows.Overlapped{Offset: lockedAt}
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &at)
}

func removeIfUnlocked(path string) bool {
	f, err := openPrivate(path)
	if err != nil {
		return false
	}
	locked := lockFile(f, false) != nil
	_ = f.Close()
	if locked {
		return false
	}
	_ = os.Remove(path)
	return true
}
