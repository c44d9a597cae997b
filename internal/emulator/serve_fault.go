package emulator

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// afterAccept tells the faults that need an accepted message from those that come first.
func afterAccept(f *Fault) bool {
	return f.Mode == modeAcceptThenDrop || f.Mode == modeAcceptThen500 || f.Mode == modeSlow
}

func beforeAccept(f *Fault) bool { return !afterAccept(f) }

// failBefore applies a fault to a request that is not accepted yet; true means that it has been answered or dropped.
func (x *exchange) failBefore(f *taken, sub *submission) bool {
	if !x.e.hold(time.Duration(f.Latency)) {
		x.vanish()
		return true
	}
	switch f.Mode {
	case modeThrottle:
		x.finish(endThrottled, x.d.throttled(scriptedWindow(f), x.e.now()))
		return true
	case modeError:
		x.finish(endRejected, x.scripted(f, f.Status))
		return true
	case modeDropBefore:
		x.vanish()
		return true
	case modeBlackHole:
		select {
		case <-x.r.Context().Done():
		case <-x.e.stopping:
		}
		x.vanish()
		return true
	case modePartial:
		if sub.degrade != nil {
			sub.degrade(&f.Fault)
		}
	}
	return false
}

// vanish ends a request without an answer and without accepting it.
func (x *exchange) vanish() {
	x.m.finish(endFaulted)
	x.drop()
}

// scriptedWindow is the window that a scripted throttle pretends to be full.
func scriptedWindow(f *taken) *full {
	return &full{limit.Window{N: 1, Per: time.Second, Unit: limit.Requests}, f.until}
}

// failAfter answers a message that is in the ledger.
func (x *exchange) failAfter(f *taken, sub *submission) {
	if f.Mode == modeSlow {
		x.trickle(sub.accepted, time.Duration(f.Latency))
		return
	}
	if !x.e.hold(time.Duration(f.Latency)) || f.Mode == modeAcceptThenDrop {
		x.drop()
		return
	}
	status := f.Status
	if status == 0 {
		status = http.StatusInternalServerError
	}
	x.write(x.scripted(f, status))
}

// scripted is the answer that a fault asks for: its own body, or the provider's for the status.
func (x *exchange) scripted(f *taken, status int) *reply {
	p := x.d.failure(status)
	if f.Body != "" {
		p = &reply{status: status, body: []byte(f.Body)}
		p.with("Content-Type", sniff(f.Body))
	}
	for name, value := range f.Headers {
		p.with(name, value)
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

// drop resets the connection: the client sees neither an answer nor an orderly end.
func (x *exchange) drop() {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http then closes the connection without an answer
	}
	reset(conn)
}

// reset closes a TCP connection with RST: with linger 0 the kernel throws away what is still unsent.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// defaultTrickle is how long a slow answer takes if the fault does not say.
const defaultTrickle = 10 * time.Second

// trickle writes an answer byte by byte over the given time, then closes the connection.
func (x *exchange) trickle(p *reply, over time.Duration) {
	if over == 0 {
		over = defaultTrickle
	}
	x.d.decorate(p)
	raw := rawResponse(p)
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close() //nolint:errcheck // nothing can be done about it
	for i := range raw {
		if !x.e.hold(over / time.Duration(len(raw))) {
			return
		}
		if _, err := conn.Write(raw[i : i+1]); err != nil {
			return
		}
	}
}

func rawResponse(p *reply) []byte {
	res := http.Response{
		StatusCode: p.status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Close: true,
		Body: io.NopCloser(bytes.NewReader(p.body)), ContentLength: int64(len(p.body)),
	}
	for name, value := range p.header {
		res.Header.Set(name, value)
	}
	var b bytes.Buffer
	_ = res.Write(&b) // a bytes.Buffer takes everything
	return b.Bytes()
}
