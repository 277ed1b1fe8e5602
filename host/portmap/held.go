package portmap

import (
	"maps"
	"time"
)

// This file is what the keeper wants and holds, which others ask for meanwhile.

// idle reports that there is nothing to do.
func (k *Keeper) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.want) == 0 && len(k.held) == 0
}

// wanted are the ports that the gateway can lead to: those on all addresses, and on
// the one that it knows.
func (k *Keeper) wanted() (out []Port) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.want {
		if a := p.At.Addr(); a.IsUnspecified() || !k.at.inside.IsValid() || a == k.at.inside {
			out = append(out, p)
		}
	}
	return out
}

// all are the mappings.
func (k *Keeper) all() map[Port]mapping {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.held)
}

func (k *Keeper) keep(p Port, m mapping) {
	k.mu.Lock()
	changed := k.held[p].outside != m.outside
	k.held[p] = m
	k.mu.Unlock()
	if changed {
		k.cfg.Changed()
	}
}

func (k *Keeper) drop(p Port) {
	k.mu.Lock()
	_, had := k.held[p]
	delete(k.held, p)
	k.mu.Unlock()
	if had {
		k.cfg.Changed()
	}
}

// expire drops what a router that no longer answers has ended by now.
func (k *Keeper) expire() {
	for p, m := range k.all() {
		if time.Now().After(m.until) {
			k.drop(p)
		}
	}
}

func (k *Keeper) clear() {
	for p := range k.all() {
		k.drop(p)
	}
}
