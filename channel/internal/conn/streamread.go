package conn

import (
	"context"
	"io"
)

// Receive waits for the next content, which is the caller's. It returns io.EOF
// after the other end's close, or the channel's error once everything received
// before it was read.
func (s *Stream) Receive(ctx context.Context) ([]byte, error) {
	item, err := s.Borrow(ctx)
	return item[:len(item):len(item)], err
}

// Borrow is Receive for one who may give the content back by Recycle. What lies
// between its length and its capacity is not to be shown to anybody.
func (s *Stream) Borrow(ctx context.Context) ([]byte, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.waitToRead(ctx); err != nil {
		return nil, err
	}
	if s.part != nil { // Read began it
		rest := s.part
		s.partDone(false)
		return rest, nil
	}
	item, large := s.rx.peek()
	n := len(item)
	if !large {
		item = append([]byte{}, item[s.offset:]...)
		s.offset = 0
	}
	s.rx.drop(c.cfg.Buffers)
	s.consumed(cost(n))
	return item, nil
}

// Recycle takes back what Borrow gave, once nobody uses it any more, so that the
// next content needs no memory.
func (s *Stream) Recycle(p []byte) { s.c.cfg.Buffers.put(p) }

// Read is stream mode: contents follow each other without borders.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := s.waitToRead(context.Background()); err != nil {
			return 0, err
		}
		if n := s.readNow(p); n > 0 {
			return n, nil
		} // contents of no bytes were skipped
	}
}

// readNow copies what is there. A large content is copied without the lock.
func (s *Stream) readNow(p []byte) (n int) {
	c := s.c
	for n < len(p) && s.part == nil && s.rx.len > 0 {
		item, large := s.rx.peek()
		if large {
			s.part, s.partBuf, s.partCost = item, item, cost(len(item))
			s.rx.drop(c.cfg.Buffers)
			break
		}
		k := copy(p[n:], item[s.offset:])
		n += k
		if s.offset += k; s.offset == len(item) {
			s.offset = 0
			size := cost(len(item))
			s.rx.drop(c.cfg.Buffers)
			s.consumed(size)
		}
	}
	if n == len(p) || s.part == nil {
		return n
	}
	part := s.part
	s.reading = true
	c.mu.Unlock()
	k := copy(p[n:], part)
	c.mu.Lock()
	s.reading = false
	if s.part = part[k:]; len(s.part) == 0 {
		s.partDone(true)
	}
	s.readers.wake()
	return n + k
}

func (s *Stream) partDone(recycle bool) {
	if recycle {
		s.c.cfg.Buffers.put(s.partBuf)
	}
	s.part, s.partBuf = nil, nil
	s.consumed(s.partCost)
}

// waitToRead waits until there is something to read. It is called and returns
// with the lock held.
func (s *Stream) waitToRead(ctx context.Context) error {
	for {
		if !s.reading {
			if s.closing || s.err == errClosed {
				return errClosed
			}
			if s.part != nil || s.rx.len > 0 {
				return nil
			}
			if s.state == ended {
				if s.err != nil {
					return s.err
				}
				return io.EOF
			}
		}
		if err := s.wait(ctx, &s.readers); err != nil {
			return err
		}
	}
}
