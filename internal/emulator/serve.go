package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// reply is one complete HTTP answer.
type reply struct {
	status int
	header map[string]string
	body   []byte
}

func jsonReply(status int, v any) *reply {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return textReply(http.StatusInternalServerError, "emulator: answer can't be encoded")
	}
	return &reply{status, map[string]string{"Content-Type": "application/json"}, bytes.TrimSuffix(b.Bytes(), []byte("\n"))}
}

func textReply(status int, text string) *reply {
	return &reply{status, map[string]string{"Content-Type": "text/plain; charset=utf-8"}, []byte(text)}
}

// with adds a header.
func (p *reply) with(name, value string) *reply {
	if p.header == nil {
		p.header = map[string]string{}
	}
	p.header[http.CanonicalHeaderKey(name)] = value
	return p
}

func (p *reply) writeTo(w http.ResponseWriter) {
	for name, value := range p.header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(p.body)))
	w.WriteHeader(p.status)
	_, _ = w.Write(p.body) //nolint:gosec // no browser reads what a provider answers; and a client that has left is no concern of ours
}

// answer serves replies that are not sends.
type answer func(*http.Request) *reply

func (a answer) ServeHTTP(w http.ResponseWriter, r *http.Request) { a(r).writeTo(w) }

// dialect is what differs between the HTTP providers.
type dialect interface {
	kind() string
	maxBody() int64
	// authenticate returns the refusal of a bad credential, or nil.
	authenticate(r *http.Request, body []byte) *reply
	// read takes the request apart and checks it as the provider does. It never changes state.
	read(r *http.Request, body []byte) *submission
	throttled(f *full, now time.Time) *reply
	tooLarge() *reply
	// failure is the provider's own body for a status.
	failure(status int) *reply
	// decorate adds what the provider sends with every answer to an authenticated call.
	decorate(p *reply)
}

// submission is one send request after the provider's checks. Either refused is set, or accepted with the entries that
// it promises. Test modes have none, nor has a batch of which nothing is taken; end says so.
type submission struct {
	cost     cost
	to       []string // every recipient that could be read, for faults
	refused  *reply
	entries  []*letter // without At
	accepted *reply
	end      end
	degrade  func(*Fault) // Postmark: refuse a part, for mode partial
}

func refusal(p *reply) *submission { return &submission{cost: cost{requests: 1}, refused: p} }

// send is the way of every HTTP send: credential, checks, faults, limits, ledger, answer.
func (e *Emulator) send(d dialect) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{e: e, d: d, m: e.meters[d.kind()], w: w, r: r, at: e.now()}
		x.m.arrive()
		x.run()
	})
}

// exchange is one send request on its way. Its end is counted before the answer leaves, so that whoever has the answer
// finds it in the statistics.
type exchange struct {
	e  *Emulator
	d  dialect
	m  *meter
	w  http.ResponseWriter
	r  *http.Request
	at time.Time
}

func (x *exchange) run() {
	body, err := readBody(x.w, x.r, x.d.maxBody())
	if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
		x.finish(endRejected, x.d.tooLarge())
		return
	}
	if err != nil { // the client left in the middle
		x.m.finish(endRejected)
		return
	}
	if p := x.d.authenticate(x.r, body); p != nil {
		x.finish(endRejected, p)
		return
	}
	sub := x.d.read(x.r, body)
	x.m.see(x.e.now, sub.cost)
	if f := x.e.faults.take(x.d.kind(), sub.to, x.e.now(), beforeAccept); f != nil {
		if x.failBefore(f, sub) {
			return
		}
	}
	if f := x.m.admit(x.e.now, sub.cost); f != nil {
		x.finish(endThrottled, x.d.throttled(f, x.e.now()))
		return
	}
	if sub.refused != nil {
		x.finish(endRejected, sub.refused)
		return
	}
	x.accept(sub)
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	src := http.MaxBytesReader(w, r.Body, limit)
	if n := r.ContentLength; n > 0 && n <= limit {
		b := bytes.NewBuffer(make([]byte, 0, n+bytes.MinRead))
		_, err := b.ReadFrom(src)
		return b.Bytes(), err
	}
	return io.ReadAll(src)
}

// finish counts the end and then answers.
func (x *exchange) finish(how end, p *reply) {
	x.m.finish(how)
	x.write(p)
}

func (x *exchange) write(p *reply) {
	x.d.decorate(p)
	p.writeTo(x.w)
}

// accept writes the ledger and answers.
func (x *exchange) accept(sub *submission) {
	for _, l := range sub.entries {
		l.Provider = x.d.kind()
		l.At = x.at.UTC().Truncate(time.Microsecond)
		l.Outcome = gravest(l.To)
	}
	if len(sub.entries) > 0 {
		if err := x.e.ledger.append(entriesOf(sub.entries)); err != nil {
			x.e.log.Error("message not accepted", "provider", x.d.kind(), "error", err)
			x.finish(endRejected, x.d.failure(http.StatusInternalServerError))
			return
		}
	}
	x.m.finish(sub.end)
	x.e.schedule(sub.entries)
	if len(sub.entries) > 0 {
		if f := x.e.faults.take(x.d.kind(), sub.to, x.e.now(), afterAccept); f != nil {
			x.failAfter(f, sub)
			return
		}
	}
	x.write(sub.accepted)
}
