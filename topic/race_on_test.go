//go:build race

package topic

// scaled makes bursts shorter where signatures are checked a hundred times slower.
func scaled(n int) int { return n / 10 }
