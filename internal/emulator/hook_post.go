package emulator

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Post is one request to one target.
type Post struct {
	Target *Target
	Events []Event
	Forged bool   // signed with a wrong key
	Mode   string // the fault mode of Kind.HookModes that the event met, "" if none

	Header http.Header // made at the first try and kept: a repetition is the same request
	Body   []byte

	freshIDs bool // each repetition gets ids of its own
	tries    uint16
}

// SlowRetries are the pauses of providers that retry for a day and more, with growing pauses.
var SlowRetries = []int{1, 2, 5, 10, 10, 10, 10, 10, 10, 10}

// sort turns due tasks into posts, and applies faults to the events that have not met them.
func (q *hookQueue) sort(due []*task) []*Post {
	var posts []*Post
	var plain []Event
	for _, x := range due {
		if x.repeat != nil {
			posts = append(posts, x.repeat)
			continue
		}
		v := x.plan[0]
		if !x.faultsMet && q.putOff(&v) {
			continue
		}
		odd, ordinary := q.distort(&v)
		if ordinary {
			plain = append(plain, v)
		}
		for _, p := range odd {
			posts = append(posts, q.split(p)...)
		}
	}
	if len(plain) > 0 {
		posts = append(posts, q.split(&Post{Events: plain})...)
	}
	return posts
}

// putOff applies the faults that keep an event from being sent now, and reports whether one of them did.
func (q *hookQueue) putOff(v *Event) bool {
	later := &task{plan: []Event{*v}, faultsMet: true}
	if q.takeHook(modeHookDrop, v.To) != nil {
		q.count(func(s *HookStats) { s.Dropped++ })
		return true
	}
	if q.takeHook(modeHookHold, v.To) != nil {
		q.count(func(*HookStats) { q.held = append(q.held, later) })
		return true
	}
	f := q.takeHook(modeHookDelay, v.To)
	if f != nil {
		later.due = q.e.now().Add(time.Duration(f.Latency))
		q.add(false, later)
	}
	return f != nil
}

// distort applies the faults that change how an event is sent. It returns the posts that they make, and whether the event is also
// sent in the ordinary way.
func (q *hookQueue) distort(v *Event) (odd []*Post, ordinary bool) {
	one := Post{
		Events:   []Event{*v},
		Forged:   q.takeHook(modeHookBadSignature, v.To) != nil,
		freshIDs: q.takeHook(modeHookNewID, v.To) != nil,
	}
	for _, mode := range q.kind.HookModes {
		if q.takeHook(mode, v.To) != nil {
			one.Mode = mode
		}
	}
	ordinary = !one.Forged && !one.freshIDs && one.Mode == ""
	if !ordinary {
		odd = append(odd, &one)
	}
	if f := q.takeHook(modeHookDuplicate, v.To); f != nil {
		for i := range max(f.Copies, 1) {
			again := one
			again.Events = []Event{*v}
			if one.freshIDs {
				again.Events[0].salt = uint16(i + 1) //nolint:gosec // at most maxFaultCopies
			}
			odd = append(odd, &again)
		}
	}
	return odd, ordinary
}

// maxBatchBytes is about how large a body may get; SendGrid posts at 768 KB at the latest.
const maxBatchBytes = 512 << 10

// split makes a post for each target, with the events that it wants. A batch that gets too large continues in another post.
func (q *hookQueue) split(p *Post) []*Post {
	var posts []*Post
	open := map[*Target]*Post{}
	size := map[*Target]int{}
	for i := range p.Events {
		v := &p.Events[i]
		for _, t := range q.targets(v) {
			if open[t] == nil || size[t]+v.size() > maxBatchBytes {
				own := *p
				own.Target, own.Events = t, nil
				open[t], size[t] = &own, 0
				posts = append(posts, &own)
			}
			open[t].Events = append(open[t].Events, *v)
			size[t] += v.size()
		}
	}
	return posts
}

// deliver sends a post once, and plans its repetition.
func (q *hookQueue) deliver(ctx context.Context, p *Post) {
	if p.freshIDs && p.tries > 0 {
		p.Body = nil
		for i := range p.Events {
			p.Events[i].salt += 1000 * p.tries // distinct from the numbers of copies
		}
	}
	if p.Body == nil {
		if err := q.provider.Compose(p); err != nil {
			q.e.log.Error("event not composed", "provider", q.kind.Name, "error", err)
			q.count(func(s *HookStats) { s.GivenUp += int64(len(p.Events)) })
			return
		}
	}
	status, err := q.post(ctx, p)
	if ctx.Err() != nil {
		return // Stop: pending events are dropped
	}
	if err != nil {
		status = 0
		q.e.log.Debug("event not sent", "provider", q.kind.Name, "error", err)
	}
	taken, pauses := q.provider.Answered(p, status)
	again := !taken && int(p.tries) < len(pauses)
	q.count(func(s *HookStats) { s.tally(p, status, taken, again) })
	if again {
		pause := time.Duration(pauses[p.tries]) * q.e.opt.RetryPace
		p.tries++
		q.add(false, &task{due: q.e.now().Add(pause), repeat: p})
	}
}

// tally counts one try.
func (s *HookStats) tally(p *Post, status int, taken, again bool) {
	s.Posted++
	if p.tries > 0 {
		s.Retried++
	}
	switch {
	case taken:
		s.OK++
		s.Events += int64(len(p.Events))
	case status == 0:
		s.Failed++
	default:
		if s.Refused == nil {
			s.Refused = map[int]int64{}
		}
		s.Refused[status]++
	}
	if !taken && !again {
		s.GivenUp += int64(len(p.Events))
	}
}

// Publish sends a target a message that is not an event.
func (h *Host) Publish(t *Target, header http.Header, body []byte) {
	h.queue.add(false, &task{due: h.e.now(), repeat: &Post{Target: t, Header: header, Body: body}})
}

// hookTimeout is how long an answer may take. SNS documents 15 s; for the others nothing is known.
const hookTimeout = 15 * time.Second

// maxHookAnswer is how much of an answer is read.
const maxHookAnswer = 64 << 10

func newHookClient() *http.Client {
	return &http.Client{
		Timeout: hookTimeout,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: hookWorkers, IdleConnTimeout: 30 * time.Second,
		},
		// None of the providers follows a redirect.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post makes the request of a post and returns the status of the answer. An error means that there was no answer.
func (h *Host) post(ctx context.Context, p *Post) (int, error) {
	if h.kind.Deliver != nil {
		return h.kind.Deliver(ctx, p)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Target.Hook["url"], bytes.NewReader(p.Body))
	if err != nil {
		return 0, fmt.Errorf("make hook request: %w", err)
	}
	req.Header = p.Header.Clone()
	res, err := h.e.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("post hook: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing can be done about it
	_, _ = io.CopyN(io.Discard, res.Body, maxHookAnswer)
	return res.StatusCode, nil
}

// Verify sends a target an event of a made-up message at once, and returns the status of the answer.
func (h *Host) Verify(ctx context.Context, t *Target, m *Message, what EventType) (int, error) {
	m.Provider, m.At = h.kind.Name, h.e.now()
	p := &Post{Target: t, Events: []Event{{Message: m, Type: what, To: m.To, At: m.At}}}
	if err := h.provider.Compose(p); err != nil {
		return 0, err
	}
	return h.post(ctx, p)
}
