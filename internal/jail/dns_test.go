package jail

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers from a script: the n-th question for a name gets the n-th list of answers, the last one over and
// over. An answer is an IPv4 address, or a name for a CNAME.
type nameServer struct {
	conn net.PacketConn

	mu     sync.Mutex
	script map[string][][]string // by name without the final dot
	asked  map[string]int        // A questions
}

// newNameServer starts a server and gives a resolver that asks it and no other.
func newNameServer(t *testing.T, script map[string][][]string) (*nameServer, *net.Resolver) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, script: script, asked: map[string]int{}}
	var served sync.WaitGroup
	served.Go(s.serve)
	t.Cleanup(func() {
		_ = conn.Close()
		served.Wait()
	})
	return s, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (s *nameServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		s.answer(&m)
		if out, err := m.Pack(); err == nil {
			_, _ = s.conn.WriteTo(out, from)
		}
	}
}

func (s *nameServer) answer(m *dnsmessage.Message) {
	q := m.Questions[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	lists, ok := s.script[name]
	switch {
	case !ok:
		m.RCode = dnsmessage.RCodeNameError
		return
	case q.Type != dnsmessage.TypeA:
		return
	}
	list := lists[min(s.asked[name], len(lists)-1)]
	s.asked[name]++
	owner := q.Name
	for _, a := range list {
		h := dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET}
		if addr, err := netip.ParseAddr(a); err == nil {
			h.Type = dnsmessage.TypeA
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
			continue
		}
		h.Type = dnsmessage.TypeCNAME
		target := dnsmessage.MustNewName(a + ".")
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: target}})
		owner = target
	}
}

// questions returns how often the address of a name was asked for.
func (s *nameServer) questions(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}
