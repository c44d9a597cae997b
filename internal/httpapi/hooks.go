package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
)

// Hooks finds the parser for the events of an account, in memory: a flood of forged requests costs the database nothing.
type Hooks interface {
	// Hook reports whether there is such an account, and returns its parser. The parser is nil if the adapter is not built or
	// has none. It changes with the account's settings.
	Hook(account string) (id int32, p provider.EventParser, known bool)
	// Current waits until the accounts in memory are at least as new as this call. It returns false when ctx ends first.
	Current(ctx context.Context) bool
}

// noHooks knows no account.
type noHooks struct{}

// Hook implements Hooks.
func (noHooks) Hook(string) (int32, provider.EventParser, bool) { return 0, nil, false }

// Current implements Hooks.
func (noHooks) Current(context.Context) bool { return true }

// Bounds of the receivers of one replica, so that a flood of events leaves room for sends. hookReads bodies of at most
// provider.MaxHook are held in memory; the parts of them above 64 kB take no more than hookRoom together. hookWork bodies
// are checked and stored at a time. Each address has its share of all three. A request that gets no turn within hookPatience
// is asked to come back; providers repeat for hours. hookStrangers requests for unknown accounts may wait at a time.
const (
	hookReads     = 256
	hookRoom      = 24 << 20
	hookWork      = 128
	hookStrangers = 64
	hookPatience  = 3 * time.Second
	hookReading   = 10 * time.Second
)

// receiveHook takes events from a provider. The provider's own signature over the raw bytes, or its password, opens it, not a
// key; nothing in the request is believed before that. It answers 200 after the commit. A request that can't be verified
// reaches neither the database nor the log.
func (s *Server) receiveHook(w http.ResponseWriter, r *http.Request) error {
	h, err := s.findHook(r.Context(), s.stranger(r), pathParam(r, "account"))
	if err != nil {
		return err
	}
	err = h.receive(w, r)
	h.count(r.Context(), err)
	if err != nil {
		return hookAnswer(err)
	}
	w.WriteHeader(http.StatusOK) // Mailgun and Postmark accept no other status as success
	return nil
}

// findHook finds the receiver of an account. An unknown account may have been made on another replica a moment ago, and have
// sent mail, so findHook looks again once the accounts have been read. Amazon SNS and Mailgun do not repeat after a 404, and
// the event would be lost.
func (s *Server) findHook(ctx context.Context, who holder, account string) (hook, error) {
	h := hook{Server: s, who: who, account: account}
	var known bool
	if h.id, h.parser, known = s.hooks.Hook(account); !known {
		if !s.accountsCurrent(ctx, who) {
			return h, errHookBusy
		}
		h.id, h.parser, known = s.hooks.Hook(account)
	}
	switch {
	case !known:
		return h, errNoAccount()
	case h.parser == nil:
		return h, &record.Unavailable{Reason: "not_ready", RetryAfter: 30 * time.Second}
	}
	return h, nil
}

// accountsCurrent waits until the accounts have been read. A flood of made-up names shares few places and costs no query.
func (s *Server) accountsCurrent(ctx context.Context, who holder) bool {
	place := s.hookStrangers.take(who, 1, nil)
	if place == nil {
		return false
	}
	defer place.release()
	ctx, cancel := context.WithTimeout(ctx, hookPatience)
	defer cancel()
	return s.hooks.Current(ctx)
}

// hook is one request at the receiver of one account.
type hook struct {
	*Server
	who     holder
	account string
	id      int32
	parser  provider.EventParser
	events  int
	dropped int
	taken   record.Taken
	waited  time.Duration // for places
}

// receive checks, reads, verifies and stores one request.
func (h *hook) receive(w http.ResponseWriter, r *http.Request) error {
	if err := h.checkHeader(r.Header); err != nil {
		return err
	}
	place := h.hookReads.take(h.who, 1, stopReading(w))
	if place == nil { // all providers may share a proxy's address, and Mailgun reports a delivery only once
		place = h.await(r.Context(), h.hookReads, stopReading(w))
	}
	if place == nil {
		return errHookBusy
	}
	defer place.release()
	room, err := h.hookBodies.share(h.who, paced{place, r.Body}, 0, stopReading(w)) // 0: only bytes that come count
	if err != nil {
		return errHookBusy
	}
	defer room.release()
	r.Body = io.NopCloser(room) // net/http closes its own
	body, err := readHook(w, r)
	if errors.Is(err, errBusy) {
		return errHookBusy
	}
	if err != nil {
		return err
	}
	turn := h.await(r.Context(), h.hookWork, nil)
	if turn == nil {
		return errHookBusy
	}
	defer turn.release()
	batch, err := h.parser.Receive(r.Context(), &provider.Hook{Header: r.Header, Body: body, Now: h.clock()})
	if err != nil {
		return err
	}
	if batch.Note != "" {
		h.log.InfoContext(r.Context(), "hook noted", "account", h.account, "note", provider.Cut(batch.Note))
	}
	h.dropped = batch.Dropped
	if batch.Dropped > 0 {
		h.log.WarnContext(r.Context(), "report names too many recipients", "account", h.account, "dropped", batch.Dropped)
	}
	return h.keep(r.Context(), batch)
}

// await waits for a place for the rest of hookPatience: SendGrid gives up after a few seconds.
func (h *hook) await(ctx context.Context, p *pool, cut func()) *place {
	began := time.Now()
	defer func() { h.waited += time.Since(began) }()
	ctx, cancel := context.WithTimeout(ctx, hookPatience-h.waited)
	defer cancel()
	return p.wait(ctx, h.who, cut)
}

// guesser is an address that guesses passwords of one account.
type guesser struct {
	who     holder
	account int32
}

const badPasswordsPerMinute = 20 // per address and account

// checkHeader refuses what it can by the header alone, so that no body of a stranger is read. After too many wrong passwords
// from one address it refuses even the right one from there, for this account: otherwise a guesser would learn that it is
// right. From other addresses the right one still works.
func (h *hook) checkHeader(header http.Header) error {
	parser, ok := h.parser.(provider.HeaderChecker)
	if !ok {
		return nil
	}
	g := guesser{h.who, h.id}
	if wait := h.badPasswords.Over(g); wait > 0 {
		h.logins.note(h.who, h.clock(), record.FailedLogins{Passwords: 1})
		return &provider.HookError{Status: http.StatusTooManyRequests, Reason: "credentials", RetryAfter: wait}
	}
	err := parser.CheckHeader(header, h.clock())
	if refused, ok := errors.AsType[*provider.HookError](err); ok && refused.Guess {
		h.badPasswords.Note(g)
		h.logins.note(h.who, h.clock(), record.FailedLogins{Passwords: 1})
	}
	return err
}

var errHookBusy = &record.Unavailable{Reason: "busy", RetryAfter: 5 * time.Second}

// keep stores the events of a verified request.
func (h *hook) keep(ctx context.Context, batch provider.Batch) error {
	for _, p := range batch.Payloads {
		h.events += len(p.Events)
	}
	switch {
	case len(batch.Payloads) == 0:
		return nil
	case h.events > provider.MaxHookEvents:
		return &provider.HookError{Status: http.StatusRequestEntityTooLarge, Reason: "too_large"}
	}
	taken, err := h.store.ReceiveEvents(ctx, record.Intake{
		Account: h.id, Source: mail.FromWebhook, Payloads: batch.Payloads, Once: batch.Once,
	})
	if errors.Is(err, record.ErrReplayed) {
		return &provider.HookError{Status: http.StatusNotAcceptable, Reason: "replayed", Err: err}
	}
	h.taken = taken
	return err
}

// readHook reads the body as it is, without decompression: a provider signs the bytes that it sends.
func readHook(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := readCapped(w, r, provider.MaxHook, hookReading)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, &provider.HookError{Status: http.StatusRequestEntityTooLarge, Reason: "too_large", Err: err}
	}
	return body, err
}

// hookAnswer gives a refusal the status that makes this provider stop or come back. The only reason in it is a hint that
// quotes nothing of the request. Operators find more in the account's state.
func hookAnswer(err error) error {
	refused, ok := errors.AsType[*provider.HookError](err)
	if !ok {
		return err
	}
	status := refused.Status
	if status < 400 || status > 599 {
		status = http.StatusForbidden
	}
	e := refuse(status, "refused", refused.Hint)
	switch status {
	case http.StatusUnauthorized:
		e.header = http.Header{"Www-Authenticate": {`Basic realm="sendgate"`}}
	case http.StatusServiceUnavailable:
		e.retryAfter = jitter(time.Second)
	case http.StatusTooManyRequests:
		e.retryAfter = refused.RetryAfter
	}
	e.cause = err
	return e
}

// count counts the result of the request, for metrics and for the state of the account.
func (h *hook) count(ctx context.Context, err error) {
	var refused *provider.HookError
	var unread *refusal
	result := "stored"
	switch {
	case err == nil:
		h.tally.received(h.id, h.events, h.clock())
		h.countEvents()
	case errors.As(err, &refused):
		result = "refused"
		h.tally.refused(h.id, refused.Reason, h.clock())
		h.logRefusal(ctx, refused)
	case errors.As(err, &unread):
		result = "refused"
		h.tally.refused(h.id, unread.code, h.clock())
	case errors.Is(err, errHookBusy):
		result = "busy"
	default:
		result = "unavailable"
	}
	h.metrics.HookRequests.WithLabelValues(h.account, result).Inc()
}

func (h *hook) countEvents() {
	for result, n := range map[string]int{
		"stored": h.taken.Stored, "duplicate": h.taken.Duplicates, "orphan": h.taken.Orphans, "foreign": h.taken.Foreign,
		"unmapped": h.taken.Unmapped, "dropped": h.dropped,
	} {
		h.metrics.HookEvents.WithLabelValues(h.account, result).Add(float64(n))
	}
}

// logRefusal writes at most one line per account and minute. It gives the cause only if it is ours (5xx): other causes might
// quote a request that was not verified.
func (h *hook) logRefusal(ctx context.Context, refused *provider.HookError) {
	before, due := h.tally.sample(h.id, h.now())
	if !due {
		return
	}
	attrs := []slog.Attr{
		slog.String("account", h.account), slog.String("reason", refused.Reason), slog.Int("status", refused.Status),
		slog.Int64("refused_since_last_line", before),
	}
	if refused.Err != nil && refused.Status >= http.StatusInternalServerError {
		attrs = append(attrs, slog.String("error", provider.Cut(refused.Err.Error())))
	}
	h.log.LogAttrs(ctx, slog.LevelWarn, "hook refused", attrs...)
}

// tally counts the requests and events at each account's receiver until Tallies fetches the counts. The number of accounts
// bounds its memory: requests for unknown accounts are not counted.
type tally struct {
	mu     sync.Mutex
	counts map[int32]*record.HookTally
	lines  map[int32]*sampled
}

// sampled is the time of an account's last log line, and how many lines were skipped since.
type sampled struct {
	at      time.Time
	skipped int64
}

const sampleEvery = time.Minute

func newTally() *tally {
	return &tally{counts: map[int32]*record.HookTally{}, lines: map[int32]*sampled{}}
}

func (t *tally) of(account int32) *record.HookTally {
	c, ok := t.counts[account]
	if !ok {
		c = &record.HookTally{Account: account}
		t.counts[account] = c
	}
	return c
}

func (t *tally) received(account int32, events int, now time.Time) {
	if events == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.of(account)
	c.Events += int64(events)
	c.LastEvent = now
}

func (t *tally) refused(account int32, reason string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.of(account)
	c.Refused++
	c.LastRefused, c.LastRefusal = now, reason
}

// sample reports whether a log line about the account is due, and how many were skipped since the last one.
func (t *tally) sample(account int32, now time.Time) (skipped int64, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.lines[account]
	if !ok {
		l = &sampled{}
		t.lines[account] = l
	}
	if ok && now.Sub(l.at) < sampleEvery {
		l.skipped++
		return 0, false
	}
	skipped = l.skipped
	l.at, l.skipped = now, 0
	return skipped, true
}

// Tallies returns the counts since the last call and clears them. The caller adds them to the store.
func (s *Server) Tallies() []record.HookTally {
	t := s.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]record.HookTally, 0, len(t.counts))
	for _, c := range t.counts {
		out = append(out, *c)
	}
	clear(t.counts)
	return out
}
