package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	tests := []struct {
		name  string
		in    []byte
		size  int
		taken int
		bad   bool
	}{
		{"one", []byte{1}, 1, 1, false},
		{"127", []byte{0x7f}, 127, 1, false},
		{"128", []byte{0x80, 1}, 128, 2, false},
		{"largest", []byte{0x80, 0x80, 0x40}, MaxRecord, 3, false},
		{"one too large", []byte{0x81, 0x80, 0x40}, 0, 0, true},
		{"zero", []byte{0}, 0, 0, true},
		{"not minimal", []byte{0x81, 0}, 0, 0, true},
		{"not minimal, three bytes", []byte{0x81, 0x80, 0}, 0, 0, true},
		{"four bytes", []byte{0x80, 0x80, 0x80, 1}, 0, 0, true},
		{"cut off", []byte{0x80}, 0, 0, false},
		{"empty", nil, 0, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			size, taken, err := ParseSize(tt.in)
			if size != tt.size || taken != tt.taken || errors.Is(err, ErrMalformed) != tt.bad {
				t.Errorf("got %d, %d, %v", size, taken, err)
			}
		})
	}
}

// TestAbuse10_FrameLengthOverflow: a length of 2^63-1 is refused and nothing is
// allocated for it.
func TestAbuse10_FrameLengthOverflow(t *testing.T) {
	in := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	r := NewReader(bytes.NewReader(in), 64)
	if _, err := r.Size(); !errors.Is(err, ErrMalformed) {
		t.Fatalf("error %v, want malformed", err)
	}
	if cap(r.buf) != 64 {
		t.Errorf("buffer grew to %d bytes", cap(r.buf))
	}
}

// TestAbuse11_OneByteAtATime: a record that promises 1 MiB and trickles in makes
// the reader keep about what came, not what was promised.
func TestAbuse11_OneByteAtATime(t *testing.T) {
	in := append(AppendSize(nil, MaxRecord), make([]byte, 3000)...)
	r := NewReader(iotest.OneByteReader(bytes.NewReader(in)), 64)
	if n, err := r.Size(); n != MaxRecord || err != nil {
		t.Fatal(n, err)
	}
	if _, err := r.Record(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("error %v, want unexpected EOF", err)
	}
	if cap(r.buf) > 8192 {
		t.Errorf("buffer grew to %d bytes for 3000", cap(r.buf))
	}
}

func TestReaderTakesWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 5000), 1, 20).Draw(t, "records")
		var stream []byte
		for _, rec := range records {
			if got := len(AppendSize(nil, len(rec))); got != SizeLen(len(rec)) {
				t.Fatalf("SizeLen(%d) = %d, want %d", len(rec), SizeLen(len(rec)), got)
			}
			stream = append(AppendSize(stream, len(rec)), rec...)
		}
		var src io.Reader = bytes.NewReader(stream)
		if rapid.Bool().Draw(t, "trickle") {
			src = iotest.HalfReader(src)
		}
		r := NewReader(src, rapid.IntRange(64, 4096).Draw(t, "buffer"))
		for i, want := range records {
			n, err := r.Size()
			if err != nil || n != len(want) {
				t.Fatalf("record %d: size %d, %v", i, n, err)
			}
			checkRecord(t, r, want)
		}
		if _, err := r.Size(); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last record: %v", err)
		}
	})
}

// checkRecord takes a record in one of the ways there are.
func checkRecord(t *rapid.T, r *Reader, want []byte) {
	switch rapid.SampledFrom([]string{"whole", "parts", "skip"}).Draw(t, "how") {
	case "whole":
		got, err := r.Record()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %x, %v; want %x", got, err, want)
		}
	case "parts":
		k := rapid.IntRange(0, len(want)).Draw(t, "split")
		head, err := r.Peek(k)
		if err != nil || !bytes.Equal(head, want[:k]) {
			t.Fatalf("peeked %x, %v", head, err)
		}
		if err := r.Discard(k); err != nil {
			t.Fatal(err)
		}
		rest := make([]byte, len(want)-k)
		if err := r.ReadFull(rest); err != nil || !bytes.Equal(rest, want[k:]) {
			t.Fatalf("read %x, %v; want %x", rest, err, want[k:])
		}
		if err := r.ReadFull(make([]byte, 1)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("reading past the record: %v", err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{5, 'h', 'e', 'l', 'l', 'o', 0x80, 0x80, 0x40})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in), 64)
		for {
			if _, err := r.Size(); err != nil {
				return
			}
			if _, err := r.Record(); err != nil {
				return
			}
		}
	})
}
