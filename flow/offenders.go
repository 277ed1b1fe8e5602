package flow

import (
	"sync"
	"time"
)

// Offences says when who sends bad input is refused, and for how long.
type Offences struct {
	Count   int           // so many …
	Within  time.Duration // … from the first of them on, and who sent them is refused
	Refusal time.Duration // for so long at first, doubling with each refusal that follows …
	Most    time.Duration // … up to this; who then behaves for as long begins anew
}

// DefaultOffences is what holds for peers: ten within a minute, a minute, ten
// minutes (gateway.md §11).
func DefaultOffences() Offences {
	return Offences{Count: 10, Within: time.Minute, Refusal: time.Minute, Most: 10 * time.Minute}
}

// Offenders counts bad input by its sender and refuses who sends it again and
// again, for a while. It holds at most max keys: those whose last refusal is long
// over are forgotten first, then the one with the oldest offence. It keeps no
// goroutine and is safe for several.
type Offenders[K comparable] struct {
	rule Offences
	max  int

	mu   sync.Mutex
	keys map[K]*offender
}

type offender struct {
	first   time.Time     // of the offences counted
	count   int           // within the window
	until   time.Time     // refused until then
	refusal time.Duration // the last one's length
}

// NewOffenders makes an empty table.
func NewOffenders[K comparable](rule Offences, maxKeys int) *Offenders[K] {
	return &Offenders[K]{rule: rule, max: maxKeys, keys: make(map[K]*offender)}
}

// Refused reports whether key is refused at now.
func (t *Offenders[K]) Refused(key K, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.keys[key]
	return o != nil && now.Before(o.until)
}

// Offend counts an offence and reports whether it is the one for which key is
// refused from now on.
func (t *Offenders[K]) Offend(key K, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.keys[key]
	if o == nil {
		t.makeRoom(now)
		o = &offender{first: now}
		t.keys[key] = o
	}
	if o.count == 0 || now.Sub(o.first) > t.rule.Within {
		o.first, o.count = now, 0
	}
	if o.count++; o.count < t.rule.Count {
		return false
	}
	o.count = 0
	if now.Sub(o.until) > t.rule.Most {
		o.refusal = 0
	}
	o.refusal = min(max(2*o.refusal, t.rule.Refusal), t.rule.Most)
	o.until = now.Add(o.refusal)
	return true
}

// Len is the number of keys held now.
func (t *Offenders[K]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.keys)
}

func (t *Offenders[K]) makeRoom(now time.Time) {
	if len(t.keys) < t.max {
		return
	}
	var oldest K
	var at time.Time
	for key, o := range t.keys {
		if now.Sub(o.first) > t.rule.Most && now.After(o.until.Add(t.rule.Most)) {
			delete(t.keys, key)
		} else if at.IsZero() || o.first.Before(at) {
			oldest, at = key, o.first
		}
	}
	if len(t.keys) >= t.max {
		delete(t.keys, oldest)
	}
}
