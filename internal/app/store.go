package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"slices"

	"github.com/sendgate/sendgate/internal/deliver"
	"github.com/sendgate/sendgate/internal/forward"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// store is the database as the API sees it. It puts accepted messages into the lane that the engine's configuration gives, and
// wakes the engine. It wakes the forwarding for what providers report.
type store struct {
	*postgres.DB
	engine  *deliver.Engine
	forward *forward.Engine
	metrics *telemetry.Metrics
	writes  *writes
}

func (a *App) store() *store {
	return &store{DB: a.db, engine: a.engine, forward: a.forward, metrics: a.metrics, writes: &a.writes}
}

// ReceiveEvents stores a provider's events, wakes their forwarding, and counts the unknown messages that they settled.
func (s *store) ReceiveEvents(ctx context.Context, in record.Intake) (record.Taken, error) {
	taken, err := s.DB.ReceiveEvents(ctx, in)
	if taken.Stored > 0 {
		s.forward.Wake()
	}
	if taken.Settled > 0 {
		s.metrics.Resolved.WithLabelValues(string(in.Source), "sent").Add(float64(taken.Settled))
	}
	return taken, err
}

// Accept makes a submission durable and wakes the engine.
func (s *store) Accept(ctx context.Context, sub *record.Submission) (record.Accepted, error) {
	if err := s.dated(); err != nil {
		return record.Accepted{}, err
	}
	s.place(sub)
	a, err := s.DB.Accept(ctx, sub)
	s.writes.note(a, err)
	if err == nil {
		s.wake(sub, a)
	}
	return a, err
}

// AcceptAll is Accept for many.
func (s *store) AcceptAll(ctx context.Context, subs []*record.Submission) ([]record.Accepted, []error) {
	if err := s.dated(); err != nil {
		return make([]record.Accepted, len(subs)), slices.Repeat([]error{err}, len(subs))
	}
	for _, sub := range subs {
		s.place(sub)
	}
	accepted, errs := s.DB.AcceptAll(ctx, subs)
	for i, sub := range subs {
		s.writes.note(accepted[i], errs[i])
		if errs[i] == nil {
			s.wake(sub, accepted[i])
		}
	}
	return accepted, errs
}

// Resend makes a message ready again and wakes the engine. The message stands in lane 0, from where a claim puts it into its own.
func (s *store) Resend(ctx context.Context, tenant mail.TenantID, id mail.ID, force bool) error {
	err := s.DB.Resend(ctx, tenant, id, force)
	if err == nil {
		s.engine.Wake(queue.Lane{Tenant: tenant})
	}
	return err
}

// place sets the lane of a submission.
func (s *store) place(sub *record.Submission) {
	f := sub.Message.Facts()
	sub.Lane = s.engine.Lane(&f)
}

// wake wakes the engine for the lane of a new message that is due now, and counts its recipients that were suppressed.
func (s *store) wake(sub *record.Submission, a record.Accepted) {
	s.countSuppressed(sub, a)
	if a.Status == mail.Queued && !a.Replayed {
		s.engine.Wake(queue.Lane{Number: sub.Lane, Tenant: sub.Message.Tenant})
	}
}

func (s *store) countSuppressed(sub *record.Submission, a record.Accepted) {
	c := s.engine.Config()
	if a.Replayed || c == nil {
		return
	}
	for i := range a.Recipients {
		if a.Recipients[i].Status == mail.Suppressed {
			s.metrics.Suppressed.WithLabelValues(c.KnownStream(sub.Message.Stream)).Inc()
		}
	}
}

// derivedKeys derives keys for one purpose from the secret keys, so that all replicas agree on them. The first key signs; all of
// them verify. Each spelling of a secret key (see seal.Spellings) gives a key, since an earlier run may have used another one.
func (a *App) derivedKeys(purpose string) [][]byte {
	texts := []string{a.cfg.SecretKey.Reveal()}
	for _, list := range []string{a.cfg.SecretKey.Reveal(), a.cfg.SecretKeyPrevious.Reveal()} {
		keys, _ := seal.ParseKeys(list) // New has read them
		for _, key := range keys {
			texts = append(texts, seal.Spellings(key)...)
		}
	}
	var derived [][]byte
	for i, text := range texts {
		if slices.Contains(texts[:i], text) {
			continue
		}
		mac := hmac.New(sha256.New, []byte(text))
		mac.Write([]byte(purpose))
		derived = append(derived, mac.Sum(nil))
	}
	return derived
}

// proxies returns the trusted proxies, none unless SENDGATE_BEHIND_PROXY is set.
func (a *App) proxies() []netip.Prefix {
	if !a.cfg.BehindProxy {
		return nil
	}
	return a.cfg.TrustedProxies
}
