package topic

import "testing"

func TestListShowsRooms(t *testing.T) {
	m, n := newNode(t), newNode(t)
	connect(t, m, n)
	a, b, c := m.page(t), m.page(t), n.page(t)
	a.subscribe(t, "room")
	b.subscribe(t, "room")
	c.subscribe(t, "room")
	a.untilMember(t, "room", c.id, true)
	list := m.List(10)
	if len(list) != 1 || list[0].Name != "room" || list[0].Locals != 2 || list[0].Nodes+list[0].Coming != 1 {
		t.Errorf("rooms %+v", list)
	}
	if len(m.List(0)) != 0 {
		t.Error("more than asked for")
	}
}
