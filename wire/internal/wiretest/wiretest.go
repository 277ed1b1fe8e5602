// Package wiretest has what the tests of wire share: the vectors, and the
// independent decoder, the capnp tool of the Debian package capnproto.
package wiretest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Vector is one message of the vector file in all its forms.
type Vector struct {
	Name, Schema, Text, Note                      string
	Unpacked, Packed, Canonical, MultiSegmentForm Hex
}

// Hex is bytes, written as hex in the file.
type Hex []byte

// UnmarshalText reads hex.
func (h *Hex) UnmarshalText(t []byte) (err error) {
	*h, err = hex.DecodeString(string(t))
	return err
}

// Vectors reads the messages of one schema, "multiplex.capnp" for example; ""
// reads all.
func Vectors(t testing.TB, schema string) []Vector {
	t.Helper()
	var file struct {
		Vectors []struct {
			Name, Schema, Text, Note string
			Unpacked                 Hex `json:"hex_unpacked"`
			Packed                   Hex `json:"hex_packed"`
			Canonical                Hex `json:"hex_canonical"`
			Multi                    Hex `json:"hex_multisegment"`
		}
	}
	load(t, &file)
	var out []Vector
	for _, v := range file.Vectors {
		if schema == "" || v.Schema == schema {
			out = append(out, Vector{v.Name, v.Schema, v.Text, v.Note, v.Unpacked, v.Packed, v.Canonical, v.Multi})
		}
	}
	if len(out) == 0 {
		t.Fatalf("no vectors of schema %q", schema)
	}
	return out
}

// Malformed is one malformed input.
type Malformed struct {
	Name, Schema, Expect string
	Packed               bool // the bytes are packed
	Bytes                []byte
}

// MalformedInputs reads the 16 malformed inputs; those the file gives as a
// recipe are made here.
func MalformedInputs(t testing.TB) []Malformed {
	t.Helper()
	var file struct {
		Malformed []struct {
			Name, Schema, Expect string
			Unpacked             Hex `json:"hex_unpacked"`
		}
	}
	load(t, &file)
	var out []Malformed
	for _, m := range file.Malformed {
		in := Malformed{Name: m.Name, Schema: m.Schema, Expect: m.Expect, Bytes: m.Unpacked}
		switch m.Name {
		case "amplification-shared-blob":
			in.Bytes = sharedBlob(t)
		case "packed-zero-run-bomb":
			in.Packed = true
			in.Bytes = append([]byte{0x70, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x00, 0xff}, 65536)...)
		}
		out = append(out, in)
	}
	if len(out) != 16 {
		t.Fatalf("%d malformed inputs, want 16", len(out))
	}
	return out
}

// sharedBlob makes 60,000 pointers to one blob of 64 KiB, as the file's recipe says.
func sharedBlob(t testing.TB) []byte {
	const elements, blob = 60_000, 65_536
	var b []byte
	word := func(w uint64) { b = binary.LittleEndian.AppendUint64(b, w) }
	word(68_199 << 32)
	word(0x0001_0001_0000_0000)    // root: one word, one pointer
	word(5)                        // msgGspAspectDataResponse
	word(0x0001_0000_0000_0000)    // struct of one pointer
	word(1 | 7<<32 | 2<<35)        // composite list of two words
	word(1<<2 | 2<<48)             // tag: one element of two pointers
	word(0)                        // entryAddress
	word(1 | 6<<32 | elements<<35) // list of pointers
	for i := range uint64(elements) {
		word(1 | (elements-1-i)<<2 | 2<<32 | blob<<35)
	}
	b = append(b, bytes.Repeat([]byte{0x5a}, blob)...)
	const want = "4acf90473d1ce2be17a130749233e34a5b768478e99ba701440f669564c32687"
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
		t.Fatalf("the recipe of amplification-shared-blob gave %x", sum)
	}
	return b
}

func load(t testing.TB, into any) {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(self), "../../testdata/lib3h.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// Tool runs "capnp convert" on a stream of messages of one root struct.
type Tool struct {
	t                 testing.TB
	std, schema, root string
}

// NewTool finds the capnp tool. Without it the test is skipped, in CI it fails.
// The schema is named as under wire/internal, for example "muxcap/mux.capnp".
func NewTool(t testing.TB, schema, root string) *Tool {
	t.Helper()
	if _, err := exec.LookPath("capnp"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the capnp tool is not installed (Debian package capnproto)")
		}
		t.Skip("the capnp tool is not installed (Debian package capnproto)")
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "capnproto.org/go/capnp/v3").Output()
	if err != nil {
		t.Fatal("find the schema library: ", err)
	}
	_, self, _, _ := runtime.Caller(0)
	return &Tool{
		t: t, std: filepath.Join(strings.TrimSpace(string(dir)), "std"),
		schema: filepath.Join(filepath.Dir(self), "..", schema), root: root,
	}
}

// Convert runs a conversion such as "text:binary".
func (c *Tool) Convert(how string, in []byte) []byte {
	c.t.Helper()
	cmd := exec.Command("capnp", "convert", "--quiet", "--short", "-I"+c.std, how, c.schema, c.root)
	cmd.Stdin = bytes.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("capnp convert %s: %v\n%.2000s", how, err, errs.String())
	}
	return out.Bytes()
}

// Split cuts a stream of unpacked messages into its messages.
func Split(t testing.TB, stream []byte) [][]byte {
	t.Helper()
	var out [][]byte
	for len(stream) > 0 {
		if len(stream) < 8 {
			t.Fatal("stream ends inside a segment table")
		}
		n := int(binary.LittleEndian.Uint32(stream)) + 1
		size := (4 + 4*n + 7) &^ 7
		for i := range n {
			size += 8 * int(binary.LittleEndian.Uint32(stream[4+4*i:]))
		}
		out = append(out, stream[:size:size])
		stream = stream[size:]
	}
	return out
}

// Rounds is the number of random messages to try: few in short mode, a million
// with the build tag long or PARLEY_LONG set.
func Rounds(t testing.TB, normal int) int {
	n := normal
	switch {
	case long || os.Getenv("PARLEY_LONG") != "":
		n = 1_000_000
	case testing.Short():
		n = normal / 10
	}
	t.Logf("random messages: %d", n)
	return n
}

// Allocated is the number of bytes that f allocates.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// MaxAllocation is what one record of n bytes may make a decoder allocate.
func MaxAllocation(n int) uint64 { return 4*uint64(n) + 64<<10 }

// Hexdump is for messages of failed tests.
func Hexdump(b []byte) string {
	if len(b) > 200 {
		return fmt.Sprintf("%x… (%d bytes)", b[:200], len(b))
	}
	return fmt.Sprintf("%x", b)
}
