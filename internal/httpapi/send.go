package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// SendStore makes messages durable.
type SendStore interface {
	// Accept makes a submission durable, or refuses it: record.ErrMismatch, *record.Unavailable, *record.OutcomeUnknown.
	Accept(ctx context.Context, s *record.Submission) (record.Accepted, error)
	// AcceptAll is Accept for many at once. Each one succeeds or fails on its own: errs[i] belongs to subs[i].
	AcceptAll(ctx context.Context, subs []*record.Submission) (accepted []record.Accepted, errs []error)
	// Replay returns the first answer to a submission with the same idempotency key and fingerprint. Errors:
	// record.ErrNotFound for an unknown key, record.ErrMismatch for another fingerprint.
	Replay(ctx context.Context, s *record.Submission) (record.Accepted, error)
}

// send accepts one message: POST /v1/send. It writes the 202 after the store has committed, not before.
func (s *Server) send(w http.ResponseWriter, r *http.Request) error {
	body, idem, release, err := s.readSend(w, r, maxIdempotencyKey)
	defer release()
	if err != nil {
		return err
	}
	accepted, err := s.accept(r, body, idem)
	if err != nil {
		return err
	}
	if accepted.Replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	return writeJSON(w, http.StatusAccepted, sendResult(accepted))
}

// readSend reads the body and the Idempotency-Key of a send. Call release as for readJSON.
func (s *Server) readSend(w http.ResponseWriter, r *http.Request, longestKey int) (body []byte, idem string, release func(), err error) {
	idem, err = idempotencyKey(r.Header, longestKey)
	if err := cmp.Or(noQuery(r), err); err != nil {
		return nil, "", func() {}, err
	}
	body, release, err = s.readJSON(w, r)
	return body, idem, release, err
}

// accept stores one message, or returns the first answer of a request that only repeats it too late.
func (s *Server) accept(r *http.Request, body []byte, idem string) (accepted record.Accepted, err error) {
	var took time.Duration
	defer func() { s.noteSubmission(accepted, err, took) }()
	sub, err := s.submission(principal(r), body, idem)
	if err != nil {
		return s.repeated(r.Context(), principal(r), body, idem, err)
	}
	began := time.Now()
	accepted, err = s.store.Accept(r.Context(), sub)
	if took = time.Since(began); err != nil {
		return record.Accepted{}, acceptProblem(err)
	}
	return accepted, nil
}

// noteSubmission counts one message, also one of a batch, by its result, and notes how long storing it took. A replayed
// message needed no commit and has no time.
func (s *Server) noteSubmission(a record.Accepted, err error, took time.Duration) {
	s.metrics.Accepted.WithLabelValues(submissionResult(a, err)).Inc()
	if err == nil && !a.Replayed {
		s.metrics.AcceptSeconds.Observe(took.Seconds())
	}
}

// submissionResult returns the label by which a message is counted.
func submissionResult(a record.Accepted, err error) string {
	if err == nil && a.Replayed {
		return "replayed"
	}
	if err == nil {
		return "accepted"
	}
	switch status := refusalOf(err).status; {
	case status == http.StatusConflict || errors.Is(err, record.ErrMismatch):
		return "conflict"
	case status == http.StatusServiceUnavailable:
		return "unavailable"
	case status == http.StatusGatewayTimeout:
		return "unknown"
	case status >= http.StatusInternalServerError:
		return "failed"
	}
	return "invalid"
}

func (s *Server) caps() mail.Caps {
	caps := mail.DefaultCaps()
	caps.Expiry = s.defaultExpiry
	return caps
}

// submission turns the JSON of one message into a record.Submission, or returns why it is refused. After that only the
// database can refuse it.
func (s *Server) submission(key *record.Key, body []byte, idem string) (*record.Submission, error) {
	draft, m, err := s.message(body)
	if err != nil {
		return nil, err
	}
	if !maySendAs(key, m.From.Domain()) {
		return nil, refuse(http.StatusForbidden, "sender_not_allowed", "This key may not send from the domain of from.")
	}
	if err := s.routable(m); err != nil {
		return nil, err
	}
	m.ID, m.Tenant = s.newID(), key.Tenant
	sub := &record.Submission{Message: m, Key: idem}
	if idem != "" {
		sub.Fingerprint = fingerprint(draft, m)
	}
	return sub, nil
}

// message turns the JSON of one message into what was meant and the message, or returns all its faults.
func (s *Server) message(body []byte) (*mail.Draft, *mail.Message, error) {
	var in sendRequest
	named, err := decodeNaming(body, &in)
	if err != nil {
		return nil, nil, err
	}
	draft := in.draft()
	m, err := draft.Message(s.clock(), s.caps())
	return draft, m, withNamed(named, err)
}

// maySendAs reports whether the key may send from a domain: exactly that one, since a subdomain may belong to someone
// else. A key without domains may send from any.
func maySendAs(key *record.Key, domain string) bool {
	return len(key.SenderDomains) == 0 ||
		slices.ContainsFunc(key.SenderDomains, func(d string) bool { return strings.EqualFold(d, domain) })
}

// rulesNamed is how many accounts a refusal names, each with the reason why it can't carry the message.
const rulesNamed = 5

// routable refuses a message that no account can carry under the present configuration: it would wait until it expires, and
// its sender would learn of it only then. An account that is merely paused, parked or busy is no reason to refuse.
func (s *Server) routable(m *mail.Message) error {
	facts := m.Facts()
	d := s.router.Explain(route.Request{Facts: &facts})
	if d.Pinned && slices.ContainsFunc(d.Candidates, func(c route.Candidate) bool { return c.Code == route.Absent }) {
		return invalid("account", "unknown_account", "there is no account of this name")
	}
	if len(d.Candidates) == 0 || d.Omitted > 0 {
		return nil
	}
	var why []string
	for _, c := range d.Candidates {
		if c.Code != route.Cannot {
			return nil
		}
		if len(why) < rulesNamed {
			why = append(why, c.Account+": "+c.Reason)
		}
	}
	if facts.NeedsSMTPUTF8 && s.carriesInASCII(facts) {
		return refuse(http.StatusUnprocessableEntity, "smtputf8_unsupported",
			"No account that may take this message carries addresses with a non-ASCII local part.")
	}
	return refuse(http.StatusUnprocessableEntity, "no_route_capability",
		"No account that may take this message can carry it. "+strings.Join(why, "; ")+".")
}

// carriesInASCII reports whether an account would take the message if its addresses were ASCII.
func (s *Server) carriesInASCII(facts mail.Facts) bool {
	facts.NeedsSMTPUTF8 = false
	return slices.ContainsFunc(s.router.Explain(route.Request{Facts: &facts}).Candidates, func(c route.Candidate) bool {
		return c.Code != route.Cannot
	})
}

// acceptProblem turns the store's ErrConflict into the 409 of an idempotency key in progress.
func acceptProblem(err error) error {
	if !errors.Is(err, record.ErrConflict) {
		return err
	}
	return &refusal{
		status: http.StatusConflict, code: "idempotency_in_progress", detail: "A request with this Idempotency-Key is in progress.",
		retryAfter: time.Second, cause: err,
	}
}

func sendResult(a record.Accepted) *api.SendResult {
	return &api.SendResult{
		ID: a.ID.String(), Status: string(a.Status),
		Recipients: views(a.Recipients, func(rc *record.RecipientStatus) api.RecipientStatus {
			return api.RecipientStatus{Email: rc.Email, Status: string(rc.Status)}
		}),
	}
}
