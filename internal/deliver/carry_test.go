package deliver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

func granted(context.Context, queue.Intent) (bool, error) { return true, nil }

// Whatever an adapter does other than to say that nothing was sent, it may have sent.
func TestCallThatToldNothingIsUncertain(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]fakeProvider{
		"error without a class": func(context.Context) (provider.Receipt, error) {
			return provider.Receipt{}, errors.New("unexpected EOF")
		},
		"panic": func(context.Context) (provider.Receipt, error) { panic("bug") },
		"no answer in time": func(ctx context.Context) (provider.Receipt, error) {
			if sleepUntil(ctx, time.Now().Add(time.Hour)) {
				return provider.Receipt{}, nil
			}
			return provider.Receipt{}, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &fakeStore{intend: granted}
				e := testEngine(t, store, send)
				loadConfig(t, e)
				it := testItem(e)
				it.acc.start()
				e.carry(it, loaded(it, loadedFor(it.due.ID)))
				if r := <-store.recorded; r.Class != string(provider.Uncertain) || r.Unknown == nil || r.Requeue != nil {
					t.Errorf("recorded %+v, want it uncertain and not requeued", r)
				}
			})
		})
	}
}

// mailedTo is a provider that notes whom it was to mail.
type mailedTo struct{ emails []string }

func (p *mailedTo) Send(_ context.Context, s *provider.Send) (provider.Receipt, error) {
	for _, list := range [][]mail.Address{s.To, s.Cc, s.Bcc} {
		for _, a := range list {
			p.emails = append(p.emails, a.Email)
		}
	}
	return provider.Receipt{ProviderMessageID: "pm-1"}, nil
}

func (*mailedTo) Close() error { return nil }

func TestOnlyQueuedRecipientsAreMailed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		statuses []mail.Status // of 0@example.org, 1@example.org ...
		mailed   []string
		recorded []queue.RecipientChange // without details
	}{
		{
			"some",
			[]mail.Status{mail.Queued, mail.Suppressed, mail.Delivered, mail.Failed, mail.Queued, mail.Sent},
			[]string{"0@example.org", "4@example.org"},
			[]queue.RecipientChange{{N: 0, Status: mail.Sent}, {N: 4, Status: mail.Sent}, {N: 1, Status: mail.Suppressed}},
		},
		{
			"none",
			[]mail.Status{mail.Suppressed, mail.Cancelled},
			nil,
			[]queue.RecipientChange{{N: 0, Status: mail.Suppressed}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			intents := 0
			store := &fakeStore{intend: func(context.Context, queue.Intent) (bool, error) { intents++; return true, nil }}
			e := testEngine(t, store, nil)
			loadConfig(t, e)
			it, p := testItem(e), &mailedTo{}
			it.acc.client = p
			it.acc.start()
			l := queue.Loaded{Message: &mail.Message{ID: it.due.ID, From: mail.Address{Email: "shop@example.com"}}}
			for n, s := range tc.statuses {
				to := mail.Address{Email: string(rune('0'+n)) + "@example.org"}
				l.Recipients = append(l.Recipients, mail.Recipient{N: n, Kind: []mail.RecipientKind{mail.To, mail.Cc, mail.Bcc}[n%3], Address: to, Status: s})
			}
			e.carry(it, loaded(it, l))
			r := <-store.recorded
			for i := range r.Recipients {
				r.Recipients[i].Detail = ""
			}
			if diff := cmp.Diff(tc.mailed, p.emails); diff != "" {
				t.Errorf("mailed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.recorded, r.Recipients); diff != "" || r.Requeue != nil {
				t.Errorf("requeued %v, recorded (-want +got):\n%s", r.Requeue, diff)
			}
			if intents != min(len(tc.mailed), 1) {
				t.Errorf("%d intents for %d recipients to mail", intents, len(tc.mailed))
			}
		})
	}
}

// awayStore is a database that does not take the first results.
type awayStore struct {
	*fakeStore
	failures int
}

func (s *awayStore) Record(ctx context.Context, owner mail.ID, r queue.Result) (bool, error) {
	if s.failures--; s.failures >= 0 {
		return false, &record.Unavailable{Reason: "database"}
	}
	return s.fakeStore.Record(ctx, owner, r)
}

func TestResultIsRecordedWhenTheDatabaseIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &awayStore{fakeStore: &fakeStore{intend: granted}, failures: 30}
		e := testEngine(t, store.fakeStore, func(context.Context) (provider.Receipt, error) {
			return provider.Receipt{ProviderMessageID: "pm-1"}, nil
		})
		e.Store = store
		loadConfig(t, e)
		it := testItem(e)
		it.acc.start()
		e.carry(it, loaded(it, loadedFor(it.due.ID)))
		if got := recordedClass(store.fakeStore); got != string(provider.Accepted) {
			t.Errorf("recorded %q after %d failures, want the answer of the provider", got, 30)
		}
	})
}
