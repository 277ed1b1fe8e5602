package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Words of NAT-PMP (RFC 6886).
const (
	pmpPort    = 5351
	pmpAddress = 0 // operations; an answer has 128 more
	pmpUDP     = 1
	pmpTCP     = 2
	pmpTaken   = 4                      // result "out of resources"
	pmpFirst   = 250 * time.Millisecond // until a question is repeated, doubling
	pmpFind    = 2 * time.Second        // to answer at all
)

// pmp is a router by NAT-PMP.
type pmp struct{ at netip.AddrPort }

// findPMP gives the router if it speaks NAT-PMP, else nil.
func findPMP(ctx context.Context, at netip.AddrPort) router {
	ctx, cancel := context.WithTimeout(ctx, pmpFind)
	defer cancel()
	r := &pmp{at}
	if _, err := r.outside(ctx); err != nil {
		return nil
	}
	return r
}

func (r *pmp) String() string { return "NAT-PMP at " + r.at.Addr().String() }

func (r *pmp) outside(ctx context.Context) (netip.Addr, error) {
	answer, err := r.ask(ctx, []byte{0, pmpAddress}, 12, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4([4]byte(answer[8:12])), nil
}

func (r *pmp) add(ctx context.Context, proto string, inner, wished uint16) (uint16, time.Duration, error) {
	outer, seconds, err := r.mapPort(ctx, proto, inner, wished, uint32(lifetime/time.Second))
	if err == nil && (outer == 0 || seconds == 0) {
		err = errors.New("NAT-PMP: a mapping to nowhere")
	}
	return outer, time.Duration(seconds) * time.Second, err
}

func (r *pmp) remove(ctx context.Context, proto string, inner, _ uint16) error {
	_, _, err := r.mapPort(ctx, proto, inner, 0, 0)
	return err
}

// mapPort asks for a mapping (section 3.3), or with no seconds for its end (3.4).
func (r *pmp) mapPort(ctx context.Context, proto string, inner, outer uint16, seconds uint32) (uint16, uint32, error) {
	op := byte(pmpUDP)
	if proto == TCP {
		op = pmpTCP
	}
	q := []byte{0, op, 0, 0}
	q = binary.BigEndian.AppendUint16(q, inner)
	q = binary.BigEndian.AppendUint16(q, outer)
	q = binary.BigEndian.AppendUint32(q, seconds)
	a, err := r.ask(ctx, q, 16, func(a []byte) bool { return binary.BigEndian.Uint16(a[8:]) == inner })
	if err != nil {
		return 0, 0, err
	}
	return binary.BigEndian.Uint16(a[10:]), binary.BigEndian.Uint32(a[12:]), nil
}

// ask sends a question until its answer comes, of a size and for this question.
// Whatever else comes is not looked at.
func (r *pmp) ask(ctx context.Context, question []byte, size int, fits func([]byte) bool) ([]byte, error) {
	c, err := new(net.Dialer).DialContext(ctx, "udp4", r.at.String()) // hears the router alone
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	buf := make([]byte, 64)
	for wait := pmpFirst; ctx.Err() == nil; wait *= 2 {
		if _, err := c.Write(question); err != nil {
			return nil, err
		}
		answer, err := awaitPMP(ctx, c, wait, buf, question[1], size, fits)
		if answer != nil || err != nil {
			return answer, err
		}
	}
	return nil, fmt.Errorf("NAT-PMP: no answer: %w", ctx.Err())
}

// awaitPMP waits for an answer for a while; nil without an error is none.
func awaitPMP(ctx context.Context, c net.Conn, wait time.Duration, buf []byte, op byte, size int, fits func([]byte) bool) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		n, err := c.Read(buf)
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
			return nil, nil
		}
		if err != nil {
			return nil, err // nobody is there
		}
		a := buf[:n]
		if n < 4 || a[0] != 0 || a[1] != 128+op {
			continue
		}
		switch code := binary.BigEndian.Uint16(a[2:]); {
		case code == pmpTaken:
			return nil, fmt.Errorf("NAT-PMP: result %d: %w", code, errPort)
		case code != 0:
			return nil, fmt.Errorf("NAT-PMP: result %d", code)
		case n >= size && (fits == nil || fits(a)):
			return a, nil
		}
	}
	return nil, nil
}
