package peer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// The promise of this package, tried at random: every send resolves once, and
// then its message was handled once and in order; or it is rejected once with a
// code, and a code that says it never arrived is right.
//
//	PARLEY_SEED=7 PARLEY_STEPS=500 go test -run Promise ./peer    replay one run
//	PARLEY_LONG=1 go test -run Promise -timeout 2h ./peer         10,000 runs

// fabric is the network below, with its faults.
type fabric interface {
	network(i int) network.Network
	restart(i int) // a new host with the same key
	cut(i, j int)  // a partition that is noticed, or not: as the fabric can
	heal(i, j int)
	disturb(i, j int) // something short
	close()
}

type memoryFabric struct {
	t       testing.TB
	cluster *peertest.Cluster
	hosts   []*peertest.Host
	random  *rand.Rand
}

func newMemoryFabric(t testing.TB, peers int, random *rand.Rand) *memoryFabric {
	f := &memoryFabric{t: t, cluster: peertest.New(), random: random}
	f.cluster.SetDelay(time.Duration(random.IntN(100)) * time.Millisecond)
	for i := range peers {
		f.hosts = append(f.hosts, f.cluster.Host(key(t, i)))
	}
	return f
}

func (f *memoryFabric) network(i int) network.Network { return f.hosts[i] }
func (f *memoryFabric) restart(i int)                 { f.hosts[i] = f.cluster.Host(key(f.t, i)) }
func (f *memoryFabric) close()                        { f.cluster.Close() }

func (f *memoryFabric) cut(i, j int) {
	a, b := f.hosts[i].Local(), f.hosts[j].Local()
	if f.random.IntN(2) == 0 {
		f.cluster.Cut(a, b)
		return
	}
	f.cluster.Block(a, b)
}

func (f *memoryFabric) heal(i, j int)    { f.cluster.Heal(f.hosts[i].Local(), f.hosts[j].Local()) }
func (f *memoryFabric) disturb(i, j int) { f.cluster.Reset(f.hosts[i].Local(), f.hosts[j].Local()) }

type simFabric struct {
	*peertest.Sim
	random *rand.Rand
}

func newSimFabric(t testing.TB, peers int, random *rand.Rand) *simFabric {
	return &simFabric{random: random, Sim: peertest.NewSim(t, peertest.SimConfig{Hosts: peers,
		Delay: 100 * time.Millisecond, Loss: float64(random.IntN(21)) / 100, Seed: random.Uint64()})}
}

func (f *simFabric) network(i int) network.Network { return f.Host(i) }
func (f *simFabric) restart(i int)                 { f.Restart(i) }
func (f *simFabric) close()                        { f.Close() }
func (f *simFabric) cut(i, j int)                  { f.Partition(i, j) }
func (f *simFabric) heal(i, j int)                 { f.Heal(i, j) }
func (f *simFabric) disturb(i, j int)              { f.SetLoss(float64(f.random.IntN(21)) / 100) }

// trial is one random run.
type trial struct {
	t      testing.TB
	random *rand.Rand
	fabric fabric
	actors []*actor
	cuts   map[[2]int]bool

	mu       sync.Mutex
	letters  map[string]*letter
	faults   []string
	sequence int
	again    int // messages that came again after a restart, in the reference's framing
}

// actor is one key, with the peer and page it has now.
type actor struct {
	id      identity.PeerID
	node    *Node
	peer    *Peer
	member  *Member
	life    int  // grows with every restart
	plain   bool // speaks the reference's framing alone
	started map[network.Protocol]bool
}

// letter is one message and what became of it.
type letter struct {
	name     string
	lane     string // sender's life, target, protocol: order holds within it
	number   int
	level    network.Level
	reply    bool
	taken    int  // times a page received it
	plain    bool // sent in the reference's framing, maybe: at least once
	lives    map[*trialPage]bool
	handled  int // times a page said so
	outcomes []network.Outcome
}

var trialProtocols = []network.Protocol{"/a", "/b"}

func newTrial(t testing.TB, seed uint64, sim bool) *trial {
	random := rand.New(rand.NewPCG(seed, 0))
	peers := 2 + random.IntN(3)
	tr := &trial{t: t, random: random, letters: make(map[string]*letter), cuts: make(map[[2]int]bool)}
	if sim {
		tr.fabric = newSimFabric(t, peers, random)
	} else {
		tr.fabric = newMemoryFabric(t, peers, random)
	}
	var shared *Node
	for i := range peers {
		a := &actor{id: tr.fabric.network(i).Local(), plain: tr.random.IntN(5) == 0}
		a.node = New(Config{Outbox: 200_000, plainOnly: a.plain})
		if shared != nil && random.IntN(3) == 0 {
			a.node = shared // a page on the same node
			a.plain = a.node.cfg.plainOnly
		}
		shared = a.node
		tr.actors = append(tr.actors, a)
		tr.live(i)
	}
	return tr
}

// live gives the i-th actor a peer on its network.
func (tr *trial) live(i int) {
	a := tr.actors[i]
	p, err := a.node.Add(tr.fabric.network(i))
	if err != nil {
		tr.t.Fatal(err)
	}
	a.life++
	a.peer, a.started = p, make(map[network.Protocol]bool)
	a.member = p.Join(&trialPage{tr: tr, settles: tr.random.IntN(4) > 0, seed: tr.random.Uint64()})
	for _, protocol := range trialProtocols {
		tr.start(a, protocol)
	}
}

func (tr *trial) start(a *actor, protocol network.Protocol) {
	if err := a.member.Start(protocol); err != nil {
		tr.t.Fatal(err)
	}
	a.started[protocol] = true
}

// step does one thing.
func (tr *trial) step() {
	i, j := tr.random.IntN(len(tr.actors)), tr.random.IntN(len(tr.actors))
	switch n := tr.random.IntN(100); {
	case n < 60:
		for range 1 + tr.random.IntN(20) {
			tr.send(i, j)
		}
	case n < 80:
		time.Sleep(time.Duration(tr.random.IntN(1000)) * time.Millisecond)
	case n < 84:
		tr.fabric.disturb(i, j)
	case n < 88 && i != j:
		tr.cuts[[2]int{i, j}] = true
		tr.fabric.cut(i, j)
	case n < 93:
		tr.healAll()
	case n < 94:
		time.Sleep(30 * time.Second)
	case n < 97:
		a, protocol := tr.actors[i], trialProtocols[tr.random.IntN(2)]
		if !a.started[protocol] {
			tr.start(a, protocol)
			return
		}
		if err := a.member.Stop(protocol); err != nil {
			tr.t.Fatal(err)
		}
		a.started[protocol] = false
	case n < 98:
		tr.actors[i].peer.Close()
		tr.fabric.restart(i)
		tr.live(i)
	}
}

func (tr *trial) healAll() {
	for pair := range tr.cuts {
		tr.fabric.heal(pair[0], pair[1])
	}
	clear(tr.cuts)
}

func (tr *trial) send(i, j int) {
	from, to := tr.actors[i], tr.actors[j]
	protocol := trialProtocols[tr.random.IntN(2)]
	tr.sequence++
	l := &letter{number: tr.sequence, plain: from.plain || to.plain, lives: make(map[*trialPage]bool), lane: fmt.Sprint(i, ".", from.life, " to ", j, protocol),
		level: network.Level(tr.random.IntN(3)), reply: tr.random.IntN(5) == 0}
	l.name = fmt.Sprintf("%s #%d", l.lane, l.number)
	padding := tr.random.IntN(100)
	if tr.random.IntN(20) == 0 {
		padding = tr.random.IntN(80_000)
	}
	text := `"` + l.name + "|" + strings.Repeat("x", padding) + `"`
	tr.mu.Lock()
	tr.letters[l.name] = l
	tr.mu.Unlock()
	cancel, err := from.member.Send(network.Outgoing{To: to.id, Protocol: protocol, Level: l.level, Reply: l.reply,
		Content: network.Content{Type: network.JSON, Data: []byte(text)}, Wait: tr.random.IntN(2) == 0,
		Done: func(o network.Outcome) { tr.settled(l, o) }})
	if err != nil {
		tr.settled(l, network.Outcome{Err: err})
		return
	}
	if tr.random.IntN(20) == 0 {
		cancel()
	}
}

// settled notes an outcome and checks it against what is known at this moment.
func (tr *trial) settled(l *letter, o network.Outcome) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	l.outcomes = append(l.outcomes, o)
	if o.Err != nil {
		return
	}
	if o.Level >= network.Delivered && l.taken == 0 {
		tr.fault("%s is %v and nobody has it", l.name, o.Level)
	}
	if o.Level >= network.Handled && l.handled == 0 {
		tr.fault("%s is handled and nobody did", l.name)
	}
	if l.reply && o.Level >= network.Handled && !l.plain && (o.Reply == nil || string(o.Reply.Data) != l.name) {
		tr.fault("%s has a wrong reply", l.name)
	}
}

func (tr *trial) fault(format string, args ...any) {
	tr.faults = append(tr.faults, fmt.Sprintf(format, args...))
}

// trialPage receives: at once or late, some without settling, some refusing.
type trialPage struct {
	tr      *trial
	settles bool

	mu   sync.Mutex
	seed uint64
	last map[string]int // by lane
}

func (p *trialPage) SettlesDeliveries() bool { return p.settles }

// roll gives a number from 0 to n-1; the order of calls is the scheduler's.
func (p *trialPage) roll(n uint64) uint64 {
	p.seed = p.seed*6364136223846793005 + 1442695040888963407
	return p.seed >> 33 % n
}

func (p *trialPage) Receive(ctx context.Context, d network.Delivery) error {
	p.mu.Lock()
	slow, late, fate := p.roll(20) == 0, time.Duration(p.roll(200))*time.Millisecond, p.roll(100)
	p.mu.Unlock()
	if slow {
		select {
		case <-time.After(10 * late):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l := p.note(d)
	if !p.settles || fate == 0 {
		return nil // never settled: the handler hangs
	}
	settle := func() { p.settle(l, d, fate) }
	if fate < 50 {
		settle()
	} else {
		time.AfterFunc(late, settle)
	}
	return nil
}

// note checks a message that came against all before it.
func (p *trialPage) note(d network.Delivery) *letter {
	name, _, _ := strings.Cut(strings.TrimPrefix(string(d.Content().Data), `"`), "|")
	tr := p.tr
	tr.mu.Lock()
	defer tr.mu.Unlock()
	l := tr.letters[name]
	if l == nil {
		tr.fault("%q was never sent", name)
		return &letter{}
	}
	if l.taken++; l.taken > 1 && (!l.plain || l.lives[p]) {
		tr.fault("%s came twice", name)
	}
	if l.plain && !l.lives[p] && l.taken > 1 {
		tr.again++
	}
	l.lives[p] = true
	if p.last == nil {
		p.last = make(map[string]int)
	}
	late := l.plain && len(l.outcomes) > 0 && l.outcomes[0].Err != nil // the reference's framing can't take back
	if before := p.last[l.lane]; before > l.number && !late {
		tr.fault("%s came after #%d", name, before)
	}
	p.last[l.lane] = max(p.last[l.lane], l.number)
	return l
}

func (p *trialPage) settle(l *letter, d network.Delivery, fate uint64) {
	if fate%10 == 1 {
		d.Refuse(fmt.Errorf("not this one"))
		return
	}
	p.tr.mu.Lock()
	l.handled++
	name := l.name
	p.tr.mu.Unlock()
	if d.WantsReply() {
		d.Reply(network.Content{Type: network.Bytes, Data: []byte(name)})
		return
	}
	d.Handled()
}

// finish lets everything end and checks the promise.
func (tr *trial) finish() {
	tr.healAll()
	time.Sleep(2 * time.Minute)
	for _, a := range tr.actors {
		if s := a.node.Stats(); s.QueuedBytes != 0 {
			tr.fault("%d bytes are left in outboxes", s.QueuedBytes)
		}
	}
	for _, a := range tr.actors {
		a.node.Close()
	}
	tr.fabric.close()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, l := range tr.letters {
		if len(l.outcomes) != 1 {
			tr.fault("%s has %d outcomes: %v", l.name, len(l.outcomes), l.outcomes)
			continue
		}
		switch code := identity.CodeOf(l.outcomes[0].Err); code {
		case identity.CodeUnreachable, identity.CodeNotStarted, identity.CodeCancelled, identity.CodeQueueFull:
			if l.taken > 0 {
				tr.fault("%s arrived and was rejected: %v", l.name, l.outcomes[0].Err)
			}
		case "", identity.CodeTimeout, identity.CodeClosed, identity.CodeRefused, identity.CodeUnsupported:
		default:
			tr.fault("%s has a strange end: %v", l.name, l.outcomes[0].Err)
		}
	}
}

// summary counts how the letters ended, to see that a run tries something.
func (tr *trial) summary() string {
	ends := make(map[string]int)
	for _, l := range tr.letters {
		end := "none"
		if len(l.outcomes) > 0 {
			end = string(identity.CodeOf(l.outcomes[0].Err))
			if end == "" {
				end = l.outcomes[0].Level.String()
			}
		}
		ends[end]++
	}
	return fmt.Sprint(len(tr.actors), " peers, ", len(tr.letters), " messages: ", ends, ", ", tr.again, " again")
}

func environment(name string, otherwise uint64) (v uint64, given bool) {
	v, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		return otherwise, false
	}
	return v, true
}

func promise(t *testing.T, sim bool, runs uint64) {
	steps, _ := environment("PARLEY_STEPS", 60)
	first, one := environment("PARLEY_SEED", rand.Uint64()>>16)
	if one {
		runs = 1
	}
	for seed := first; seed < first+runs; seed++ {
		var tr *trial
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr = newTrial(t, seed, sim)
				for range steps {
					tr.step()
				}
				tr.finish()
				t.Log(tr.summary())
				for _, fault := range tr.faults[:min(len(tr.faults), 10)] {
					t.Error(fault)
				}
			})
		})
		if !ok {
			t.Fatalf("replay with PARLEY_SEED=%d PARLEY_STEPS=%d", seed, steps)
		}
	}
}

func longRuns(short, long uint64) uint64 {
	if os.Getenv("PARLEY_LONG") != "" {
		return long
	}
	return short
}

func TestPromiseInMemory(t *testing.T) { promise(t, false, longRuns(50, 9_000)) }

func TestPromiseOnALossyWire(t *testing.T) { promise(t, true, longRuns(3, 1_000)) }
