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

// post is one request to one target.
type post struct {
	target *target
	events []happening
	forged bool // signed with a key that is not ours
	v1     bool // SES: SignatureVersion 1
	fresh  bool // each repetition gets ids of its own

	tries  uint16
	header http.Header // made at the first try, and kept: a repetition is the same request
	body   []byte
}

// verdict is what an answer means to a provider.
type verdict int

const (
	told  verdict = iota // done
	final                // refused, and never to be tried again
	again                // to be tried again, as the schedule has it
)

// herald is what differs between the providers when they tell events.
type herald interface {
	// compose fills header and body of a post.
	compose(p *post) error
	// send makes the request and returns the status of the answer; an error is no answer.
	send(ctx context.Context, p *post) (int, error)
	verdict(status int) verdict
	// retries has the pauses before each repetition, in units of Options.RetryPace.
	retries(p *post) []int
}

// sort turns what is due into posts, and applies the faults to events that they have not met.
func (l *lane) sort(due []*errand) []*post {
	var posts []*post
	var plain []happening
	for _, x := range due {
		if x.again != nil {
			posts = append(posts, x.again)
			continue
		}
		h := x.plan[0]
		odd, rest := l.judge(&h, x.judged)
		if rest {
			plain = append(plain, h)
		}
		for _, p := range odd {
			posts = append(posts, l.address(p)...)
		}
	}
	if len(plain) > 0 {
		posts = append(posts, l.address(&post{events: plain})...)
	}
	return posts
}

// judge meets an event with the faults. It returns posts of its own for it, and whether it goes the ordinary way.
func (l *lane) judge(h *happening, judged bool) (odd []*post, plain bool) {
	take := func(mode string) *taken { return l.e.faults.takeAt(queue{l.kind, mode}, h.to, l.e.now(), nil) }
	if !judged {
		if take(modeHookDrop) != nil {
			l.count(func(s *HookStats) { s.Dropped++ })
			return nil, false
		}
		if take(modeHookHold) != nil {
			l.mu.Lock()
			l.held = append(l.held, &errand{plan: []happening{*h}, judged: true})
			l.mu.Unlock()
			return nil, false
		}
		if f := take(modeHookDelay); f != nil {
			l.add(false, &errand{due: l.e.now().Add(time.Duration(f.Latency)), plan: []happening{*h}, judged: true})
			return nil, false
		}
	}
	one := post{
		events: []happening{*h},
		forged: take(modeHookBadSignature) != nil,
		v1:     take(modeHookSignatureV1) != nil,
		fresh:  take(modeHookNewID) != nil,
	}
	if one.forged || one.v1 || one.fresh {
		odd = append(odd, &one)
	}
	if f := take(modeHookDuplicate); f != nil {
		salt := uint16(0)
		for range max(f.Copies, 1) {
			twin := one
			twin.events = []happening{*h}
			if one.fresh {
				salt++
				twin.events[0].salt = salt
			}
			odd = append(odd, &twin)
		}
	}
	return odd, !one.forged && !one.v1 && !one.fresh
}

// maxBatchBytes is about how large a body may get: SendGrid posts at 768 KB at the latest.
const maxBatchBytes = 512 << 10

// address makes a post for each target, with the events that it wants; a batch that gets too large goes on in another.
func (l *lane) address(p *post) []*post {
	var posts []*post
	open := map[*target]*post{}
	size := map[*target]int{}
	for i := range p.events {
		h := &p.events[i]
		for _, t := range l.e.hooks.targets(h) {
			if open[t] == nil || size[t]+h.size() > maxBatchBytes {
				own := *p
				own.target, own.events = t, nil
				open[t], size[t] = &own, 0
				posts = append(posts, &own)
			}
			open[t].events = append(open[t].events, *h)
			size[t] += h.size()
		}
	}
	return posts
}

// tell makes a post once, and sees to its repetition.
func (l *lane) tell(ctx context.Context, p *post) {
	if p.fresh && p.tries > 0 {
		p.body = nil
		for i := range p.events {
			p.events[i].salt += 1000 * p.tries // apart from the numbers of copies
		}
	}
	if p.body == nil {
		if err := l.herald.compose(p); err != nil {
			l.e.log.Error("event not composed", "provider", l.kind, "error", err)
			l.count(func(s *HookStats) { s.GivenUp += int64(len(p.events)) })
			return
		}
	}
	status, err := l.herald.send(ctx, p)
	if ctx.Err() != nil {
		return // Stop: what is pending is dropped
	}
	outcome := again
	if err == nil {
		outcome = l.herald.verdict(status)
	}
	pauses := l.herald.retries(p)
	if outcome == again && int(p.tries) >= len(pauses) {
		outcome = final
	}
	l.tally(p, status, err, outcome)
	p.tries++
	if outcome == again {
		pause := time.Duration(pauses[p.tries-1]) * l.e.opt.RetryPace
		l.add(false, &errand{due: l.e.now().Add(pause), again: p})
	}
}

// tally counts one try.
func (l *lane) tally(p *post, status int, err error, outcome verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.stats
	s.Posted++
	if p.tries > 0 {
		s.Retried++
	}
	switch {
	case err != nil:
		s.Failed++
		l.e.log.Debug("event not told", "provider", l.kind, "error", err)
	case outcome == told:
		s.OK++
		s.Events += int64(len(p.events))
	default:
		if s.Refused == nil {
			s.Refused = map[int]int64{}
		}
		s.Refused[status]++
	}
	if outcome == final {
		s.GivenUp += int64(len(p.events))
	}
}

// hookTimeout is how long an answer may take. SNS documents 15 s; of the others nothing is known.
const hookTimeout = 15 * time.Second

// maxHookAnswer is how much of an answer is read.
const maxHookAnswer = 64 << 10

// messenger is the HTTP side that all the heralds of HTTP providers share.
type messenger struct{ client *http.Client }

func newMessenger() messenger {
	return messenger{&http.Client{
		Timeout: hookTimeout,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: laneWorkers, IdleConnTimeout: 30 * time.Second,
		},
		// None of the providers follows a redirect.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (m messenger) send(ctx context.Context, p *post) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.target.URL, bytes.NewReader(p.body))
	if err != nil {
		return 0, fmt.Errorf("make hook request: %w", err)
	}
	req.Header = p.header.Clone()
	res, err := m.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("post hook: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing can be done about it
	_, _ = io.CopyN(io.Discard, res.Body, maxHookAnswer)
	return res.StatusCode, nil
}
