package consent

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// Answer is what a person said to the pages of one origin.
type Answer struct {
	Origin  string    `json:"origin"`
	Allowed bool      `json:"allowed"`
	Scope   Scope     `json:"scope"`           // what was asked for, and allowed if Allowed
	Token   string    `json:"token,omitempty"` // lets the origin's pages in; a secret
	Since   time.Time `json:"since"`
}

// Refusal counts the tries of an origin that was not let in.
type Refusal struct {
	Origin string
	Tries  int
	Last   time.Time
}

// Keeper holds the answers between two runs, as one file of mode 0600. Load
// gives nil where nothing was kept yet.
type Keeper interface {
	Load() ([]byte, error)
	Save([]byte) error
}

// What a book holds at most.
const (
	maxAnswers  = 1000
	maxRefusals = 64
)

// Book is all the answers of a node's person. It is safe for several goroutines.
type Book struct {
	keeper Keeper
	now    func() time.Time

	mu       sync.Mutex
	answers  map[string]Answer // by origin
	refusals map[string]*Refusal
	ended    func(origin string) // what to do when a yes was taken back
}

// Open reads what was answered before. A damaged file is an error: a lost "no"
// would be asked again.
func Open(k Keeper) (*Book, error) {
	b := &Book{keeper: k, now: time.Now, answers: map[string]Answer{}, refusals: map[string]*Refusal{}, ended: func(string) {}}
	text, err := k.Load()
	if err != nil || len(text) == 0 {
		return b, err
	}
	var list []Answer
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("the kept answers are damaged: %w", err)
	}
	for _, a := range list {
		b.answers[a.Origin] = a
	}
	return b, nil
}

// OnEnd sets what is called, without a lock, when what an origin was allowed was
// taken back: its sessions must end. Set it before the book is used.
func (b *Book) OnEnd(f func(origin string)) { b.ended = f }

// Scope is what a page of an origin may use with its token; ok is false where it
// is not let in.
func (b *Book) Scope(origin, token string) (s Scope, ok bool) {
	b.mu.Lock()
	a := b.answers[origin]
	b.mu.Unlock()
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.Token))
	if !a.Allowed || a.Token == "" || subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		return Scope{}, false
	}
	return a.Scope, true
}

// Get is the answer for an origin.
func (b *Book) Get(origin string) (Answer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.answers[origin]
	return a, ok
}

// Put keeps what the person said. A yes adds to what was allowed before and keeps
// its token; a no ends it. Errors: CodeLimit, CodeMalformed for too many names, and
// what the Keeper reports.
func (b *Book) Put(origin string, scope Scope, allowed bool) (a Answer, err error) {
	a = Answer{Origin: origin, Allowed: allowed, Scope: scope, Since: b.now().UTC().Truncate(time.Second)}
	err = b.change(origin, func() error {
		before, known := b.answers[origin]
		switch {
		case !known && len(b.answers) >= maxAnswers:
			return identity.Errorf(identity.CodeLimit, "%d sites are remembered, no more: forget some", maxAnswers)
		case allowed && before.Allowed:
			a.Token = before.Token
			if a.Scope, err = before.Scope.with(scope); err != nil {
				return err
			}
		case allowed:
			raw := make([]byte, 32)
			_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
			a.Token = base64.RawURLEncoding.EncodeToString(raw)
		}
		b.answers[origin] = a
		delete(b.refusals, origin)
		return nil
	})
	return a, err
}

// Forget takes an answer back: the origin is asked about again.
func (b *Book) Forget(origin string) error {
	return b.change(origin, func() error {
		delete(b.answers, origin)
		return nil
	})
}

// change saves what how does to the answers, or undoes it.
func (b *Book) change(origin string, how func() error) error {
	b.mu.Lock()
	before, had := b.answers[origin]
	err := how()
	if err == nil {
		if err = b.save(); err != nil {
			delete(b.answers, origin)
			if had {
				b.answers[origin] = before
			}
		}
	}
	over := err == nil && had && before.Token != b.answers[origin].Token
	b.mu.Unlock()
	if over {
		b.ended(origin)
	}
	return err
}

// save writes all answers. Called with mu: one file, one writer.
func (b *Book) save() error {
	text, err := json.MarshalIndent(b.sorted(), "", "\t")
	if err != nil {
		return err
	}
	return b.keeper.Save(text)
}

// Answers lists what was answered, by origin.
func (b *Book) Answers() []Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sorted()
}

func (b *Book) sorted() []Answer {
	list := make([]Answer, 0, len(b.answers))
	for _, a := range b.answers {
		list = append(list, a)
	}
	slices.SortFunc(list, func(x, y Answer) int { return cmp.Compare(x.Origin, y.Origin) })
	return list
}

// Refused notes that a page of an origin tried to connect and may not. Of too
// many origins the one that tried longest ago is forgotten.
func (b *Book) Refused(origin string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.refusals[origin]
	if r == nil {
		if len(b.refusals) >= maxRefusals {
			oldest := ""
			for o, other := range b.refusals {
				if oldest == "" || other.Last.Before(b.refusals[oldest].Last) {
					oldest = o
				}
			}
			delete(b.refusals, oldest)
		}
		r = &Refusal{Origin: origin}
		b.refusals[origin] = r
	}
	r.Tries++
	r.Last = b.now()
}

// Refusals lists who tried in vain since the start, the last first.
func (b *Book) Refusals() []Refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Refusal, 0, len(b.refusals))
	for _, r := range b.refusals {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(x, y Refusal) int { return y.Last.Compare(x.Last) })
	return list
}
