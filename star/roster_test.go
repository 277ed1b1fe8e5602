package star

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// crowd is a roster of n members, each with a session of its own.
func crowd(n int) *roster {
	limits := Limits{Addresses: -1, AddressesPerIP: -1}.withDefaults()
	r := newRoster(&limits, nil)
	for i := range n {
		r.join(&session{ip: ip4(i)}, fmt.Sprint("/ip4/", ip4(i).Addr()), "", 0, time.Time{})
	}
	return r
}

func ip4(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
}

// S-16: a session that ends is taken out of its own places alone, whatever the
// number of members: nobody else's entry is touched, but for the last, which takes
// the free place in the list.
func TestS_16_LeavingCostsOwn(t *testing.T) {
	for _, n := range []int{10, 10_000} {
		r := crowd(n)
		leaving := r.order[n/2].sess
		second := "/ip4/1.2.3.4"
		r.join(leaving, second, "", 0, time.Time{})
		before := make(map[*member]int, n)
		for _, m := range r.order {
			before[m] = m.at
		}
		logged := r.version
		if left := r.leaveAll(leaving); len(left) != 2 {
			t.Fatalf("%d left", len(left))
		}
		moved := 0
		for m, at := range before {
			if m.sess != leaving && m.at != at {
				moved++
			}
		}
		if moved > 2 || r.version != logged+2 || len(r.order) != n-1 || len(r.receivers) != n-1 || r.perIP[leaving.ip] != 0 {
			t.Errorf("of %d: %d others moved, %d entries in the log, %d members, %d receivers", n, moved, r.version-logged, len(r.order), len(r.receivers))
		}
		allocated := testing.AllocsPerRun(1, func() {
			if r.find(second) == nil {
				r.join(leaving, second, "", 0, time.Time{})
			}
			r.leaveAll(leaving)
		})
		if allocated > 40 {
			t.Errorf("of %d: joining and leaving allocates %v times", n, allocated)
		}
	}
}

// Sessions and members keep in step over any order of joining and leaving.
func TestRosterKeepsItsTables(t *testing.T) {
	r := crowd(50)
	for i := len(r.receivers) - 1; i >= 0; i = len(r.receivers) - 1 {
		r.leaveAll(r.receivers[(i*7)%(i+1)])
		for at, m := range r.order {
			if m.at != at || m.sess.at >= len(r.receivers) || r.receivers[m.sess.at] != m.sess || r.byAddr[m.place] != m {
				t.Fatalf("member %s is out of its place", m.addr)
			}
		}
	}
	if len(r.byAddr)+len(r.perIP)+len(r.perKey)+r.own != 0 {
		t.Error("something is left")
	}
}
