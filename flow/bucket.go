package flow

import (
	"math"
	"sync"
	"time"
)

// Bucket is a token bucket: rate tokens a second, at most burst at once. It
// keeps no goroutine and is safe for several. The zero Bucket allows nothing.
type Bucket struct {
	rate  float64
	burst float64

	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// NewBucket makes a full bucket.
func NewBucket(rate, burst float64) *Bucket {
	return &Bucket{rate: rate, burst: burst, tokens: burst}
}

// Allow takes n tokens if they are there at now. Where they are not, nothing is
// taken and retry says after how long they will be; it is 0 when n is more than
// the bucket ever holds.
func (b *Bucket) Allow(n float64, now time.Time) (ok bool, retry time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	if b.tokens >= n {
		b.tokens -= n
		return true, 0
	}
	if n > b.burst || b.rate <= 0 {
		return false, 0
	}
	wait := math.Ceil((n - b.tokens) / b.rate * float64(time.Second))
	return false, time.Duration(max(wait, 1)) // never 0, which says something else
}

func (b *Bucket) fill(now time.Time) {
	if !b.last.IsZero() && now.After(b.last) {
		b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.last).Seconds())
	}
	if now.After(b.last) {
		b.last = now
	}
}

// full reports whether the bucket has forgotten everything by now.
func (b *Bucket) full(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	return b.tokens >= b.burst
}

// Buckets keeps one Bucket a key, for example an address. It holds at most max
// keys: full buckets are forgotten first, and when none is full a new key shares
// one bucket with all others that came too late, so a flood of keys gains
// nothing.
type Buckets[K comparable] struct {
	rate, burst float64
	max         int

	mu   sync.Mutex
	keys map[K]*Bucket
	rest *Bucket
}

// NewBuckets makes a table whose buckets have rate and burst.
func NewBuckets[K comparable](rate, burst float64, maxKeys int) *Buckets[K] {
	return &Buckets[K]{
		rate: rate, burst: burst, max: maxKeys,
		keys: make(map[K]*Bucket), rest: NewBucket(rate, burst),
	}
}

// Allow is Bucket.Allow on the bucket of key.
func (t *Buckets[K]) Allow(key K, n float64, now time.Time) (ok bool, retry time.Duration) {
	return t.bucket(key, now).Allow(n, now)
}

// Len is the number of keys held now.
func (t *Buckets[K]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.keys)
}

func (t *Buckets[K]) bucket(key K, now time.Time) *Bucket {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b, ok := t.keys[key]; ok {
		return b
	}
	if len(t.keys) >= t.max {
		for k, b := range t.keys {
			if b.full(now) {
				delete(t.keys, k)
			}
		}
		if len(t.keys) >= t.max {
			return t.rest
		}
	}
	b := NewBucket(t.rate, t.burst)
	t.keys[key] = b
	return b
}
