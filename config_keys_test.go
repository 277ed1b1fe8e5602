package parley

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// values are three texts for a setting of a type, each of which is another value.
func values(t *testing.T, k key) [3]string {
	t.Helper()
	switch k.value.Interface().(type) {
	case string:
		return [3]string{"a", "b", "c d"}
	case bool:
		on := fmt.Sprint(!k.value.Bool())
		return [3]string{on, fmt.Sprint(k.value.Bool()), on}
	case int:
		return [3]string{"101", "202", "303"}
	case Duration:
		return [3]string{"1m1s", "2m2s", "3m3s"}
	case Size:
		return [3]string{"5 KiB", "6 MiB", "7"}
	case []string:
		return [3]string{"one", "one,two", "three,four,five"}
	}
	t.Fatalf("%s: no values for a %s", k.name, k.value.Type())
	return [3]string{}
}

// inFile writes a setting as TOML.
func inFile(k key, text string) string {
	section, name := k.name[:strings.LastIndexByte(k.name, '.')], k.name[strings.LastIndexByte(k.name, '.')+1:]
	switch k.value.Interface().(type) {
	case bool, int:
	case []string:
		text = `["` + strings.ReplaceAll(text, ",", `", "`) + `"]`
	default:
		text = `"` + text + `"`
	}
	return fmt.Sprintf("[%s]\n%s = %s\n", section, name, text)
}

// TestEveryKey walks over the settings: each can be set by file, environment and
// flag under its name, the later of these wins, nothing else changes, and a wrong
// value is an error that names it.
func TestEveryKey(t *testing.T) {
	def := DefaultConfig()
	for i, k := range def.keys() {
		t.Run(k.name, func(t *testing.T) {
			v := values(t, k)
			src := ConfigSources{Site: siteWith("config/parley.toml", inFile(k, v[0]))}
			cfg := mustLoad(t, src)
			wantOnly(t, cfg, i, v[0])
			src.Env = []string{k.env() + "=" + v[1]}
			cfg = mustLoad(t, src)
			wantOnly(t, cfg, i, v[1])
			if err := cfg.Set(k.name, v[2]); err != nil {
				t.Fatal(err)
			}
			wantOnly(t, cfg, i, v[2])
			if _, free := k.value.Interface().(string); free {
				return
			}
			if _, _, err := LoadConfig(ConfigSources{Site: siteWith("config/parley.toml", inFile(key{k.name, reflect.ValueOf("")}, "{}"))}); err == nil || !strings.Contains(err.Error(), "config/parley.toml:2: ") {
				t.Errorf("a wrong value in a file: %v", err)
			}
			if _, list := k.value.Interface().([]string); list {
				return
			}
			if _, _, err := LoadConfig(ConfigSources{Env: []string{k.env() + "={}"}}); err == nil || !strings.Contains(err.Error(), k.env()) || !strings.Contains(err.Error(), k.name) {
				t.Errorf("a wrong value in the environment: %v", err)
			}
			if err := cfg.Set(k.name, "{}"); err == nil || !strings.Contains(err.Error(), k.name) {
				t.Errorf("a wrong value of a flag: %v", err)
			}
		})
	}
}

func mustLoad(t *testing.T, src ConfigSources) Config {
	t.Helper()
	cfg, warnings, err := LoadConfig(src)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return cfg
}

// wantOnly holds a configuration to the defaults, but for one setting.
func wantOnly(t *testing.T, cfg Config, changed int, text string) {
	t.Helper()
	def := DefaultConfig()
	defaults := def.keys()
	for i, k := range cfg.keys() {
		if i != changed {
			if !reflect.DeepEqual(k.value.Interface(), defaults[i].value.Interface()) {
				t.Errorf("%s has become %s too", k.name, k.text())
			}
			continue
		}
		if got, _ := cfg.Get(k.name); got != text {
			t.Errorf("it is %q, want %q", got, text)
		}
	}
}

// TestUnknownKeysAreErrors: a typo in any section is found, with its line.
func TestUnknownKeysAreErrors(t *testing.T) {
	def := DefaultConfig()
	seen := map[string]bool{}
	for _, k := range def.keys() {
		section := k.name[:strings.LastIndexByte(k.name, '.')]
		if seen[section] {
			continue
		}
		seen[section] = true
		_, _, err := LoadConfig(ConfigSources{Site: siteWith("parley.toml", "\n["+section+"]\n# a typo\ntypo = 1\n")})
		if err == nil || err.Error() != "parley.toml:4: unknown key "+section+".typo" {
			t.Errorf("in %s: %v", section, err)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d sections", len(seen))
	}
}

// TestKeysOfTheSpecification: each setting of docs/spec/gateway.md §9 is one.
func TestKeysOfTheSpecification(t *testing.T) {
	text := readDoc(t, "docs/spec/gateway.md")
	_, text, _ = strings.Cut(text, "\n## 9. Configuration\n")
	text, _, _ = strings.Cut(text, "\n## 10.")
	there := map[string]bool{}
	def := DefaultConfig()
	for _, k := range def.keys() {
		there[k.name] = true
	}
	found := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\|").FindAllStringSubmatch(text, -1) {
		section := ""
		for _, name := range regexp.MustCompile("`([a-zA-Z0-9.]+)`").FindAllStringSubmatch(row[1], -1) {
			full := name[1]
			if strings.HasPrefix(full, ".") {
				full = section + full
			}
			section = full[:strings.LastIndexByte(full, '.')]
			found++
			if !there[full] {
				t.Errorf("there is no %s", full)
			}
		}
	}
	if found < 50 {
		t.Errorf("the specification has %d settings only", found)
	}
}

// TestEveryKeyIsRead finds settings that nothing but the configuration looks at;
// those that this version does not use warn (notUsed).
func TestEveryKeyIsRead(t *testing.T) {
	var code strings.Builder
	for _, pattern := range []string{"*.go", "site/*.go", "gateway/access/*.go", "cmd/parley/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if base := filepath.Base(name); !strings.HasSuffix(base, "_test.go") && !strings.HasPrefix(base, "config") {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				code.Write(text)
			}
		}
	}
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := prefix + f.Tag.Get("toml")
			switch {
			case f.Tag.Get("toml") == "-" || notUsed[name] != "":
			case f.Type.Kind() == reflect.Struct:
				walk(name+".", f.Type)
			case !regexp.MustCompile(`\.` + f.Name + `\b`).MatchString(code.String()):
				t.Errorf("nothing reads %s (%s)", name, f.Name)
			}
		}
	}
	walk("", reflect.TypeOf(Config{}))
}
