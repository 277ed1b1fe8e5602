package parley

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// ConfigSources says where LoadConfig looks. A later field wins over an
// earlier one; what the caller sets afterwards (flags) wins over all.
type ConfigSources struct {
	Site fs.FS    // the site, which may bring config/parley.toml or the reference's file; nil for none
	File string   // a file to read instead of the site's; "" for none
	Env  []string // "NAME=value", as os.Environ has them
}

// siteFiles is where a site's configuration may be, the first one found counts.
var siteFiles = []string{"config/parley.toml", "config/p2p-webapp.toml", "parley.toml", "p2p-webapp.toml"}

// maxConfig is far above any configuration that people write.
const maxConfig = 1 << 20

// LoadConfig reads defaults, file and environment, in this order. An unknown
// key is an error with its line; an unknown PARLEY_ variable is a warning,
// since others may use the name. The result is not validated yet: flags may
// still change it.
func LoadConfig(src ConfigSources) (cfg Config, warnings []string, err error) {
	cfg = DefaultConfig()
	name, text, err := src.read()
	if err != nil {
		return cfg, nil, err
	}
	if err := cfg.decode(name, text); err != nil {
		return cfg, nil, err
	}
	warnings, err = cfg.environment(src.Env)
	return cfg, warnings, err
}

// Set sets one key to a text, for flags: Set("server.port", "8080"). A list is
// separated by commas.
func (c *Config) Set(name, text string) error {
	for _, k := range c.keys() {
		if k.name == name {
			return k.set(text)
		}
	}
	return fmt.Errorf("unknown key %s", name)
}

// Get gives the text of one key, as Set takes it; false where there is no such
// key.
func (c *Config) Get(name string) (text string, ok bool) {
	for _, k := range c.keys() {
		if k.name == name {
			return k.text(), true
		}
	}
	return "", false
}

func (src ConfigSources) read() (name string, text []byte, err error) {
	if src.File != "" {
		f, err := os.Open(src.File)
		if err != nil {
			return "", nil, fmt.Errorf("read configuration: %w", err)
		}
		defer f.Close()
		text, err = readConfig(src.File, f)
		return src.File, text, err
	}
	if src.Site == nil {
		return "", nil, nil
	}
	for _, name := range siteFiles {
		f, err := src.Site.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("read configuration: %w", err)
		}
		defer f.Close()
		text, err = readConfig(name, f)
		return name, text, err
	}
	return "", nil, nil
}

func readConfig(name string, r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%s: larger than %s", name, Size(maxConfig))
	}
	return text, nil
}

// decode reads TOML over what is there. Every fault is named with its line.
func (c *Config) decode(name string, text []byte) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(c)
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		var all []error
		for _, e := range missing.Errors {
			row, _ := e.Position()
			all = append(all, fmt.Errorf("%s:%d: unknown key %s", name, row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	var fault *toml.DecodeError
	if errors.As(err, &fault) {
		row, _ := fault.Position()
		where := fmt.Sprintf("%s:%d: ", name, row)
		if k := fault.Key(); len(k) > 0 {
			where += strings.Join(k, ".") + ": "
		}
		return errors.New(where + strings.TrimPrefix(fault.Error(), "toml: "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (c *Config) environment(env []string) (warnings []string, err error) {
	byName := map[string]key{}
	for _, k := range c.keys() {
		byName[k.env()] = k
	}
	for _, entry := range env {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "PARLEY_") {
			continue
		}
		k, ok := byName[name]
		if !ok {
			warnings = append(warnings, name+" is in the environment but no setting of parley")
			continue
		}
		if err := k.set(text); err != nil {
			return nil, fmt.Errorf("%s in the environment: %w", name, err)
		}
	}
	slices.Sort(warnings)
	return warnings, nil
}
