package gatewaytest

import "testing"

// Visit is a test's TB whose cleanups run when a visit is over, where the test
// would keep the sockets of ten thousand visits until its own end. It is for one
// goroutine.
type Visit struct {
	testing.TB
	cleanups []func()
}

// Cleanup has f called by Over.
func (v *Visit) Cleanup(f func()) { v.cleanups = append(v.cleanups, f) }

// Over ends the visit.
func (v *Visit) Over() {
	for i := len(v.cleanups) - 1; i >= 0; i-- {
		v.cleanups[i]()
	}
	v.cleanups = nil
}
