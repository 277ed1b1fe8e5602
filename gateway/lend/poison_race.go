//go:build race

package lend

func poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
