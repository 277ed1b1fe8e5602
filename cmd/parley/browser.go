package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
)

// openBrowser shows url in the person's browser. An error means that there is
// no way to; a failure that shows later goes to note.
func openBrowser(url string, note func(error)) error {
	name, args, err := browserCommand(runtime.GOOS, os.Getenv, exec.LookPath)
	if err != nil {
		return err
	}
	cmd := exec.Command(name, append(args, url)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	// Nobody waits for this goroutine: it lives as long as the person's browser
	// may, which must outlive the node.
	go func() {
		if err := cmd.Wait(); err != nil {
			note(err)
		}
	}()
	return nil
}

// browserCommand finds the system's way to open a URL.
func browserCommand(goos string, getenv func(string) string, look func(string) (string, error)) (name string, args []string, err error) {
	candidates := [][]string{{"xdg-open"}, {"wslview"}, {"gio", "open"}}
	switch goos {
	case "darwin":
		candidates = [][]string{{"open"}}
	case "windows":
		candidates = [][]string{{"rundll32", "url.dll,FileProtocolHandler"}}
	default:
		if getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" && getenv("WSL_DISTRO_NAME") == "" {
			return "", nil, errors.New("there is no display; open the address yourself")
		}
	}
	for _, c := range candidates {
		if path, err := look(c[0]); err == nil {
			return path, c[1:], nil
		}
	}
	return "", nil, errors.New("this system has no command for it; open the address yourself")
}
