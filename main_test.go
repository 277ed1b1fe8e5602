package parley

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is a star where a test has started the binary as one.
func TestMain(m *testing.M) {
	if settings := os.Getenv(asStar); settings != "" {
		os.Exit(beStar(settings))
	}
	goleak.VerifyTestMain(m)
}
