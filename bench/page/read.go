package page

import "fmt"

// What may come between two acknowledgements of numbered frames.
const (
	receivedFrames = 32
	receivedBytes  = 64 << 10
)

func (p *Page) read() error {
	var msg []byte
	var acked uint64
	unacked := 0 // bytes
	for {
		var err error
		if msg, err = p.conn.Read(msg[:0]); err != nil {
			return err
		}
		unacked += len(msg)
		var answers []byte
		for s := (scanner{rest: msg}); len(s.rest) > 0; {
			answers = p.frame(&s, answers)
			if s.err != nil {
				return s.err
			}
		}
		if p.arrived-acked >= receivedFrames || unacked >= receivedBytes {
			acked, unacked = p.arrived, 0
			answers = appendUint(appendUint(appendArray(answers, 2), kindReceived), acked)
		}
		if len(answers) > 0 {
			p.push(answers)
		}
	}
}

// frame reads one frame and appends what it asks to be answered.
func (p *Page) frame(s *scanner, answers []byte) []byte {
	_, n := s.head()
	kind := s.uint()
	if kind >= kindRequest {
		p.arrived++
	}
	used := uint64(1)
	switch kind {
	case kindResult:
		id := s.uint()
		p.settle(id, s.raw(), nil)
		used = 3
	case kindError:
		id := s.uint()
		p.settle(id, nil, fmt.Errorf("%s: %s", s.string(), s.string()))
		used = 4
	case kindMessage:
		delivery := s.uint()
		p.message(s.string(), s.string(), s.raw())
		used = 5
		answers = appendUint(appendUint(appendArray(answers, 2), kindHandled), delivery)
	case kindPublication:
		topic, from := s.string(), s.string()
		p.mu.Lock()
		h := p.topics[string(topic)]
		p.mu.Unlock()
		if data := s.raw(); h != nil {
			h(string(from), data)
		}
		used = 4
	case kindLost:
		s.skip()
		n := s.uint()
		p.mu.Lock()
		p.lost += n
		p.mu.Unlock()
		used = 3
	case kindPing:
		answers = appendUint(appendUint(appendArray(answers, 2), kindPong), s.uint())
		used = 2
	case kindBye:
		s.err = fmt.Errorf("bye: %s: %s", s.string(), s.string())
		return answers
	}
	for ; used < n && s.err == nil; used++ {
		s.skip()
	}
	return answers
}

func (p *Page) message(from, protocol, data []byte) {
	p.mu.Lock()
	h := p.handlers[string(protocol)]
	p.mu.Unlock()
	if h != nil {
		h(string(from), data)
	}
}

func (p *Page) settle(id uint64, result []byte, err error) {
	p.mu.Lock()
	done := p.pending[id]
	delete(p.pending, id)
	p.mu.Unlock()
	if done != nil {
		done(result, err)
	}
}
