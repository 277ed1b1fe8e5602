//go:build unix

package discover

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// privateToUser reports whether a folder belongs to this user and is closed to
// others.
func privateToUser(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid() && info.Mode().Perm()&0o077 == 0
}

// openPrivate opens a regular file of this user, and follows no link.
func openPrivate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !privateToUser(info)) {
		err = errors.New("not a private file of this user")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// lockFile takes the lock of a file, without waiting.
func lockFile(f *os.File, exclusive bool) error {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	return syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
}

// removeIfUnlocked removes the file of an instance that isn't running, and
// reports whether that was so.
func removeIfUnlocked(path string) bool {
	f, err := openPrivate(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if lockFile(f, false) != nil { // shared: two who look at once don't take each other for the owner
		return false
	}
	_ = os.Remove(path)
	return true
}
