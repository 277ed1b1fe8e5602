package parley

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Duration is a time.Duration that a configuration writes as "5s" or "1m30s".
type Duration time.Duration

// D is the duration as the standard library has it.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String is the text that UnmarshalText reads.
func (d Duration) String() string { return time.Duration(d).String() }

// UnmarshalText reads "5s". A number without a unit is refused, but for 0.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`%q is no duration such as "5s"`, text)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes, which a configuration writes as a number or as
// "32 MiB".
type Size int64

// The units of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// String is the shortest exact text: "32 MiB", "1000".
func (s Size) String() string {
	for _, u := range []struct {
		unit Size
		name string
	}{{GiB, " GiB"}, {MiB, " MiB"}, {KiB, " KiB"}} {
		if s != 0 && s%u.unit == 0 {
			return strconv.FormatInt(int64(s/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText reads "33554432", "32 MiB" and "32MiB".
func (s *Size) UnmarshalText(text []byte) error {
	digits := strings.TrimRightFunc(string(text), func(r rune) bool { return !unicode.IsDigit(r) })
	unit, ok := map[string]Size{"": 1, "b": 1, "kib": KiB, "mib": MiB, "gib": GiB}[strings.ToLower(strings.TrimSpace(string(text)[len(digits):]))]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 || n > math.MaxInt64/int64(unit) {
		return fmt.Errorf(`%q is no size such as 4096 or "32 MiB"`, text)
	}
	*s = Size(n) * unit
	return nil
}

// key is one setting of a Config.
type key struct {
	name  string // "server.portRange"
	value reflect.Value
}

// env is the setting's name in the environment: PARLEY_SERVER_PORT_RANGE.
func (k key) env() string {
	var b strings.Builder
	b.WriteString("PARLEY_")
	small := false
	for _, r := range k.name {
		if r == '.' {
			r = '_'
		}
		if unicode.IsUpper(r) && small {
			b.WriteByte('_')
		}
		small = unicode.IsLower(r)
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// set reads text into the setting. A list is separated by commas.
func (k key) set(text string) error {
	var err error
	switch v := k.value.Addr().Interface().(type) {
	case *string:
		*v = text
	case *bool:
		*v, err = strconv.ParseBool(text)
		err = because(err, text, "true or false")
	case *int:
		*v, err = strconv.Atoi(text)
		err = because(err, text, "a number")
	case *Duration:
		err = v.UnmarshalText([]byte(text))
	case *Size:
		err = v.UnmarshalText([]byte(text))
	case *[]string:
		*v = []string{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*v = append(*v, item)
			}
		}
	default:
		err = fmt.Errorf("can't be set by a text")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	return nil
}

// text is what set reads.
func (k key) text() string {
	if list, ok := k.value.Interface().([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(k.value.Interface())
}

func because(err error, text, want string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q is not %s", text, want)
}

// keys lists the settings of c in the order of its fields. Setting one changes c.
func (c *Config) keys() []key {
	return appendKeys(nil, "", reflect.ValueOf(c).Elem())
}

func appendKeys(list []key, prefix string, v reflect.Value) []key {
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("toml")
		switch {
		case tag == "-":
		case v.Field(i).Kind() == reflect.Struct:
			list = appendKeys(list, prefix+tag+".", v.Field(i))
		default:
			list = append(list, key{prefix + tag, v.Field(i)})
		}
	}
	return list
}
