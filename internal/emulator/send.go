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

// Reply is one complete HTTP answer.
type Reply struct {
	Status int
	Header map[string]string
	Body   []byte
}

// JSON returns an answer in JSON.
func JSON(status int, v any) *Reply {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return Text(http.StatusInternalServerError, "emulator: answer can't be encoded")
	}
	return &Reply{status, map[string]string{"Content-Type": "application/json"}, bytes.TrimSuffix(b.Bytes(), []byte("\n"))}
}

// Text returns an answer in plain text.
func Text(status int, text string) *Reply {
	return &Reply{status, map[string]string{"Content-Type": "text/plain; charset=utf-8"}, []byte(text)}
}

// With adds a header.
func (p *Reply) With(name, value string) *Reply {
	if p.Header == nil {
		p.Header = map[string]string{}
	}
	p.Header[http.CanonicalHeaderKey(name)] = value
	return p
}

func (p *Reply) writeTo(w http.ResponseWriter) {
	for name, value := range p.Header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(p.Body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.Body) //nolint:gosec // no browser reads what a provider answers; and a client that has left is no concern of ours
}

// Submission is one send request after the provider's checks. Either Refused is set, or Accepted with the messages that were
// accepted. A test mode has no messages, nor has a batch without an accepted one; End says so.
type Submission struct {
	Cost     Cost
	To       []string // every recipient that could be read, for faults
	Refused  *Reply
	Messages []*Message // without Provider, At and Outcome
	Accepted *Reply
	End      End
	Degrade  func(*Fault) // refuses a part of the request, for mode partial
	Taken    func()       // called when the messages are in the ledger; it may be nil
}

// Refuse is the submission of a request that could not be read.
func Refuse(p *Reply) *Submission { return &Submission{Cost: Cost{Requests: 1}, Refused: p} }

// Send serves a send: credential, checks, faults, limits, ledger, answer. read parses the request and checks it as the provider
// does; it changes nothing.
func (h *Host) Send(read func(r *http.Request, body []byte) *Submission) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{Host: h, w: w, r: r, at: h.e.now()}
		h.Arrive()
		x.run(read)
	})
}

// exchange is one send request in progress. Its end is counted before the answer leaves, so that a client with the answer finds
// it in the statistics.
type exchange struct {
	*Host
	w  http.ResponseWriter
	r  *http.Request
	at time.Time
}

// run handles the request in the order that Send documents.
func (x *exchange) run(read func(r *http.Request, body []byte) *Submission) {
	body, err := readBody(x.w, x.r, x.kind.MaxBody)
	if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
		x.finish(EndRejected, x.provider.Failure(http.StatusRequestEntityTooLarge))
		return
	}
	if err != nil { // the client left before the end
		x.Finish(EndRejected)
		return
	}
	if p := x.provider.Authenticate(x.r, body); p != nil {
		x.finish(EndRejected, p)
		return
	}
	sub := read(x.r, body)
	x.See(sub.Cost)
	if f := x.Take(sub.To, beforeAccept); f != nil && x.failBefore(f, sub) {
		return
	}
	if f := x.Admit(sub.Cost); f != nil {
		x.finish(EndThrottled, x.provider.Throttled(f))
		return
	}
	if sub.Refused != nil {
		x.finish(EndRejected, sub.Refused)
		return
	}
	x.accept(sub)
}

// readBody reads up to limit bytes. A longer body is an error.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	src := http.MaxBytesReader(w, r.Body, limit)
	n := r.ContentLength
	if n > limit { // read to its end anyway, for a client that reads the answer after that; but nothing is kept
		_, err := io.Copy(io.Discard, src)
		return nil, err
	}
	if n > 0 {
		b := bytes.NewBuffer(make([]byte, 0, n+bytes.MinRead))
		_, err := b.ReadFrom(src)
		return b.Bytes(), err
	}
	return io.ReadAll(src)
}

// finish counts the end and then answers.
func (x *exchange) finish(how End, p *Reply) {
	x.Finish(how)
	x.write(p)
}

func (x *exchange) write(p *Reply) {
	x.provider.Decorate(p)
	p.writeTo(x.w)
}

// accept writes the ledger and answers.
func (x *exchange) accept(sub *Submission) {
	if err := x.Accept(x.at, sub.Messages...); err != nil {
		x.finish(EndRejected, x.provider.Failure(http.StatusInternalServerError))
		return
	}
	if sub.Taken != nil {
		sub.Taken()
	}
	x.Finish(sub.End)
	if len(sub.Messages) > 0 {
		if f := x.Take(sub.To, AfterAccept); f != nil {
			x.failAfter(f, sub)
			return
		}
	}
	x.write(sub.Accepted)
}

// Accept writes messages into the ledger, keeps their mails and plans their events. On an error nothing was done.
func (h *Host) Accept(at time.Time, messages ...*Message) error {
	if len(messages) == 0 {
		return nil
	}
	entries := make([]Entry, len(messages))
	for i, m := range messages {
		m.Provider, m.At, m.Outcome = h.kind.Name, at.UTC().Truncate(time.Microsecond), gravest(m.To)
		if m.Tags == nil {
			m.Tags = []string{}
		}
		if m.Args == nil {
			m.Args = map[string]string{}
		}
		entries[i] = m.Entry
	}
	if err := h.e.ledger.append(entries); err != nil {
		h.e.log.Error("message not accepted", "provider", h.kind.Name, "error", err)
		return err
	}
	h.e.mails.keep(messages)
	h.schedule(messages)
	return nil
}
