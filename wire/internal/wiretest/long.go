//go:build long

package wiretest

// long is set in the long target.
const long = true
