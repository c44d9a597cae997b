package emulator

import (
	"bytes"
	"cmp"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// AfterAccept reports whether a fault needs an accepted message.
func AfterAccept(f *Fault) bool {
	return f.Mode == ModeAcceptThenDrop || f.Mode == ModeAcceptThen500 || f.Mode == ModeSlow
}

func beforeAccept(f *Fault) bool { return !AfterAccept(f) }

// failBefore applies a fault to a request that is not accepted yet; true means that it has been answered or dropped.
func (x *exchange) failBefore(f *AppliedFault, sub *Submission) bool {
	if !x.Hold(time.Duration(f.Latency)) {
		x.abandon()
		return true
	}
	switch f.Mode {
	case ModeThrottle:
		x.finish(EndThrottled, x.provider.Throttled(scriptedWindow(f)))
		return true
	case ModeError:
		x.finish(EndRejected, x.scripted(f, f.Status))
		return true
	case ModeDropBefore:
		x.abandon()
		return true
	case ModeBlackHole:
		select {
		case <-x.r.Context().Done():
		case <-x.e.stopping:
		}
		x.abandon()
		return true
	case ModePartial:
		if sub.Degrade != nil {
			sub.Degrade(&f.Fault)
		}
	}
	return false
}

// abandon ends a request without an answer and without accepting it.
func (x *exchange) abandon() {
	x.Finish(EndFaulted)
	x.drop()
}

// scriptedWindow is the full window of a scripted throttle.
func scriptedWindow(f *AppliedFault) *Full {
	return &Full{limit.Window{N: 1, Per: time.Second, Unit: limit.Requests}, f.Until}
}

// failAfter applies a fault to a message that is in the ledger, and answers it.
func (x *exchange) failAfter(f *AppliedFault, sub *Submission) {
	if f.Mode == ModeSlow {
		x.trickle(sub.Accepted, f)
		return
	}
	if !x.Hold(time.Duration(f.Latency)) || f.Mode == ModeAcceptThenDrop {
		x.drop()
		return
	}
	x.write(x.scripted(f, cmp.Or(f.Status, http.StatusInternalServerError)))
}

// scripted is the answer of a fault: its own body, or the provider's for the status.
func (h *Host) scripted(f *AppliedFault, status int) *Reply {
	p := h.provider.Failure(status)
	if f.Body != "" {
		p = &Reply{Status: status, Body: []byte(f.Body)}
		p.With("Content-Type", sniff(f.Body))
	}
	for name, value := range f.Headers {
		p.With(name, value)
	}
	return p
}

func sniff(body string) string {
	switch body[0] {
	case '{', '[':
		return "application/json"
	case '<':
		return "text/html; charset=utf-8"
	}
	return "text/plain; charset=utf-8"
}

// drop resets the connection: the client sees neither an answer nor a regular close.
func (x *exchange) drop() {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http then closes the connection without an answer
	}
	Reset(conn)
}

// Reset closes a TCP connection with RST: with linger 0 the kernel discards unsent data.
func Reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// trickle writes an answer slowly, then closes the connection.
func (x *exchange) trickle(p *Reply, f *AppliedFault) {
	x.provider.Decorate(p)
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = x.Trickle(f, conn, rawResponse(p))
	_ = conn.Close()
}

// Trickle writes byte by byte over the latency of a fault, or over 10 s if it has none.
func (h *Host) Trickle(f *AppliedFault, w io.Writer, b []byte) (int, error) {
	over := cmp.Or(time.Duration(f.Latency), 10*time.Second)
	for i := range b {
		if !h.Hold(over / time.Duration(len(b))) {
			return i, net.ErrClosed
		}
		if _, err := w.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func rawResponse(p *Reply) []byte {
	res := http.Response{
		StatusCode: p.Status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Close: true,
		Body: io.NopCloser(bytes.NewReader(p.Body)), ContentLength: int64(len(p.Body)),
	}
	for name, value := range p.Header {
		res.Header.Set(name, value)
	}
	var b bytes.Buffer
	_ = res.Write(&b) // a bytes.Buffer accepts everything
	return b.Bytes()
}
