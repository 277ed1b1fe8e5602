//go:build !long

package channel

import "time"

// simLength is how long the simulation runs, in its own time.
const simLength = 40 * time.Second
