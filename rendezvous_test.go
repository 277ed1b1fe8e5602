package parley

import (
	"slices"
	"testing"
)

func TestRendezvousLastsAsLongAsPagesDo(t *testing.T) {
	var now []string
	r := newRendezvous(func(topic string) func() {
		now = append(now, topic)
		return func() { now = slices.DeleteFunc(now, func(s string) bool { return s == topic }) }
	})
	for _, step := range []struct {
		do    func(string)
		topic string
		want  []string
	}{
		{r.enter, "a", []string{"a"}},
		{r.enter, "a", []string{"a"}},
		{r.enter, "b", []string{"a", "b"}},
		{r.exit, "a", []string{"a", "b"}},
		{r.exit, "a", []string{"b"}},
		{r.enter, "a", []string{"b", "a"}},
		{r.exit, "b", []string{"a"}},
		{r.exit, "a", []string{}},
	} {
		step.do(step.topic)
		if !slices.Equal(now, step.want) {
			t.Fatalf("after %s: %v, want %v", step.topic, now, step.want)
		}
	}
}
