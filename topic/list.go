package topic

// RoomInfo is a topic in use on this node, for people to look at.
type RoomInfo struct {
	Name   string
	Locals int // peers of this node in it
	Nodes  int // other nodes in it that the router can send to
	Coming int // other nodes in it that it can't reach yet
}

// List gives up to most topics, in no order. It waits for no room.
func (n *Node) List(most int) []RoomInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]RoomInfo, 0, min(len(n.rooms), most))
	for name, r := range n.rooms {
		if len(list) == most {
			break
		}
		info := RoomInfo{Name: name}
		if v := r.view.Load(); v != nil {
			info.Locals, info.Nodes, info.Coming = v.locals, len(v.ready), v.pending
		}
		list = append(list, info)
	}
	return list
}
