package star

import (
	"encoding/base64"
	"io"
	"time"
)

// challenge is one nonce that a session has been asked to sign (S-2, S-10).
type challenge struct {
	addr  string
	nonce string
	key   *publicKey
	until time.Time
	tries int
	over  bool // too many wrong tries: kept to say so until it expires
}

// challenges are those of one session, the oldest first. They belong to its
// receive path.
type challenges []*challenge

// find gives the challenge for an address; expired ones are dropped, and told of
// once by stale.
func (c *challenges) find(addr string, now time.Time) (ch *challenge, stale bool) {
	kept := (*c)[:0]
	for _, one := range *c {
		switch {
		case now.Before(one.until) && !one.over:
			kept = append(kept, one)
			if one.addr == addr {
				ch = one
			}
		case one.addr == addr:
			stale = true
			if now.Before(one.until) {
				kept = append(kept, one)
			}
		}
	}
	clear((*c)[len(kept):])
	*c = kept
	return ch, stale
}

// open makes a new challenge for an address, instead of any there is, and drops the
// oldest where there are too many.
func (c *challenges) open(addr string, key *publicKey, random io.Reader, l *Limits, now time.Time) (ch *challenge, dropped bool, err error) {
	nonce, err := newNonce(addr, random)
	if err != nil {
		return nil, false, err
	}
	c.drop(addr)
	for len(*c) >= l.Challenges {
		*c, dropped = append((*c)[:0], (*c)[1:]...), true
	}
	ch = &challenge{addr: addr, nonce: nonce, key: key, until: now.Add(l.ChallengeLife)}
	*c = append(*c, ch)
	return ch, dropped, nil
}

// drop forgets the challenges for an address.
func (c *challenges) drop(addr string) {
	kept := (*c)[:0]
	for _, one := range *c {
		if one.addr != addr {
			kept = append(kept, one)
		}
	}
	clear((*c)[len(kept):])
	if *c = kept; len(kept) == 0 {
		*c = nil
	}
}

// NoncePrefix begins every nonce of a parley star. The address follows, then
// random text: "parley-star/1 <address> <random>". A client signs it only where
// the address is its own (S-10).
const NoncePrefix = "parley-star/1 "

// nonceBytes are the random bytes of a nonce.
const nonceBytes = 32

func newNonce(addr string, random io.Reader) (string, error) {
	var raw [nonceBytes]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", err
	}
	return NoncePrefix + addr + " " + base64.RawURLEncoding.EncodeToString(raw[:]), nil
}
