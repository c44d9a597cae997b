package notify

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// fakeStore is a store whose mails have the status that a test sets.
type fakeStore struct {
	Store
	mine     bool
	leases   int
	ended    int
	status   mail.Status
	accepted []*record.Submission
	canceled []mail.ID
	cancel   error
	finished []incident.Result
	due      []incident.Notice
}

func (s *fakeStore) LeaseWatch(context.Context, mail.ID, time.Duration) (bool, error) {
	s.leases++
	return s.mine, nil
}

func (s *fakeStore) EndWatch(context.Context, mail.ID) error { s.ended++; return nil }

func (s *fakeStore) CountOutcomes(context.Context) (record.Counted, error) {
	return record.Counted{}, errors.New("the database is away")
}

func (s *fakeStore) DueNotices(context.Context, int) ([]incident.Notice, error) {
	due := s.due
	s.due = nil
	return due, nil
}

func (s *fakeStore) FinishNotice(_ context.Context, r incident.Result) error {
	s.finished = append(s.finished, r)
	return nil
}

func (s *fakeStore) NoticeMail(context.Context, mail.ID) (mail.Status, string, error) {
	return s.status, s.accepted[len(s.accepted)-1].Message.Account, nil
}

func (s *fakeStore) Accept(_ context.Context, sub *record.Submission) (record.Accepted, error) {
	s.accepted = append(s.accepted, sub)
	return record.Accepted{ID: sub.Message.ID, Status: mail.Queued}, nil
}

func (s *fakeStore) Cancel(_ context.Context, _ mail.TenantID, id mail.ID) error {
	s.canceled = append(s.canceled, id)
	return s.cancel
}

// fakeRouter routes a pinned mail to its account, unless that is one of those that can't send now.
type fakeRouter struct {
	config route.Config
	cannot []string
}

func (r *fakeRouter) Config() *route.Config { return &r.config }

func (r *fakeRouter) Explain(q route.Request) route.Decision {
	if slices.Contains(r.cannot, q.Facts.Account) {
		return route.Decision{}
	}
	return route.Decision{Chosen: q.Facts.Account}
}

// roundTrip is a client's transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newEngine(t *testing.T, s *fakeStore, r *fakeRouter, answer roundTrip) *Engine {
	t.Helper()
	e, err := New(Options{
		Store: s, Router: r, Client: &http.Client{Transport: answer}, Reports: func(provider.Kind) bool { return true },
		Sign: func(h http.Header, id string, _ time.Time, _ []byte, secret seal.Secret) error {
			h.Set("Webhook-Id", id+" "+secret.Reveal())
			return nil
		},
		Log: slog.New(slog.DiscardHandler), Metrics: telemetry.New(prometheus.NewRegistry()), Clock: mail.NewClock(nil, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func accounts(names ...string) *fakeRouter {
	r := &fakeRouter{config: route.Config{Pools: []route.Pool{{Name: "default"}}}}
	for _, name := range names {
		r.config.Accounts = append(r.config.Accounts, route.Account{Name: name})
		r.config.Pools[0].Members = append(r.config.Pools[0].Members, route.Member{Account: name, Weight: 1})
	}
	return r
}

func mailNotice() *incident.Notice {
	return &incident.Notice{
		ID: mail.NewID(), Incident: incident.Incident{ID: mail.NewID(), Kind: incident.AuthFailure, Account: "ses", Since: time.Now()},
		Rule: incident.Rule{Name: "ops", Channel: incident.Mail, From: "sendgate@example.com", To: []string{"ops@example.org"}},
	}
}

func TestTheMailAvoidsTheAccountThatItIsAbout(t *testing.T) {
	t.Parallel()
	ill := []incident.Incident{{Kind: incident.ProviderDown, Account: "mailgun"}}
	tests := map[string]struct {
		router *fakeRouter
		tried  []string
		open   []incident.Incident
		want   string // the account; "" if the mail has to wait
	}{
		"another one":            {router: accounts("ses", "resend"), want: "resend"},
		"nobody else":            {router: accounts("ses")},
		"the only other is ill":  {router: accounts("ses", "mailgun"), open: ill, want: "mailgun"},
		"rather not the ill one": {router: accounts("mailgun", "ses", "resend"), open: ill, want: "resend"},
		"not one that failed it": {router: accounts("mailgun", "ses", "resend"), tried: []string{"mailgun"}, want: "resend"},
		"all failed it":          {router: accounts("ses", "resend"), tried: []string{"resend"}},
		"weights are looked at": {router: func() *fakeRouter {
			r := accounts("mailgun", "resend")
			r.config.Pools[0].Members[0].Weight = 0
			return r
		}(), want: "resend"},
		"paused": {router: func() *fakeRouter {
			r := accounts("mailgun", "resend")
			r.config.Accounts[0].Paused = true
			return r
		}(), want: "resend"},
		"one that can't send now": {router: func() *fakeRouter {
			r := accounts("mailgun", "resend")
			r.cannot = []string{"mailgun"}
			return r
		}(), want: "resend"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &fakeStore{}
			n := mailNotice()
			n.Tried = tt.tried
			r := newEngine(t, s, tt.router, nil).write(t.Context(), n, tt.open)
			if tt.want == "" {
				if len(s.accepted) > 0 || r.Done || r.Error == "" || r.Again <= 0 {
					t.Errorf("%d mails, %+v; want it tried again", len(s.accepted), r)
				}
				return
			}
			if len(s.accepted) != 1 || s.accepted[0].Message.Account != tt.want || r.Done || n.Message != s.accepted[0].Message.ID {
				t.Fatalf("mails %v, %+v; want one by %s", s.accepted, r, tt.want)
			}
			if m := s.accepted[0].Message; m.Subject != "[sendgate] ses: the provider refuses the account" || m.Tenant != mail.DefaultTenant || m.To[0].Email != "ops@example.org" {
				t.Errorf("mail = %+v", m)
			}
		})
	}
}

func TestAMailIsFollowedUntilAProviderTookIt(t *testing.T) {
	t.Parallel()
	for status, want := range map[mail.Status]string{
		mail.Sent: "done", mail.Delivered: "done", mail.Queued: "wait", mail.Sending: "wait", mail.Unknown: "wait",
		mail.Failed: "elsewhere", mail.Cancelled: "elsewhere", mail.Suppressed: "given up", mail.FailedUnknown: "elsewhere",
	} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			s := &fakeStore{status: status}
			e := newEngine(t, s, accounts("ses", "resend", "mailgun"), nil)
			n := mailNotice()
			e.write(t.Context(), n, nil)
			r := e.write(t.Context(), n, nil)
			got := "wait"
			switch {
			case r.Done && r.Error == "":
				got = "done"
			case r.Done:
				got = "given up"
			case len(s.accepted) == 2:
				got = "elsewhere"
			}
			if got != want {
				t.Errorf("%+v: %s, want %s", r, got, want)
			}
			if got == "elsewhere" && (s.accepted[1].Message.Account != "mailgun" || s.accepted[0].Key == s.accepted[1].Key) {
				t.Errorf("the second mail: %+v", s.accepted[1])
			}
		})
	}
}

func TestAMailThatIsNotSentInTimeIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status         mail.Status
		cancel         error
		taken, another int
	}{
		"in time": {mail.Queued, nil, 1, 1}, "it is being sent now": {mail.Queued, record.ErrConflict, 1, 0},
		"in a call": {mail.Sending, nil, 0, 0}, "nobody knows": {mail.Unknown, nil, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &fakeStore{status: tt.status, cancel: tt.cancel}
				e := newEngine(t, s, accounts("ses", "resend", "mailgun"), nil)
				n := mailNotice()
				e.write(t.Context(), n, nil)
				time.Sleep(patience - time.Second)
				if e.write(t.Context(), n, nil); len(s.canceled) > 0 || len(s.accepted) > 1 {
					t.Error("it was taken back too early")
				}
				time.Sleep(2 * time.Second)
				e.write(t.Context(), n, nil)
				if len(s.canceled) != tt.taken || len(s.accepted) != 1+tt.another {
					t.Errorf("%d were taken back and %d accepted, want %d and %d", len(s.canceled), len(s.accepted), tt.taken, 1+tt.another)
				}
			})
		})
	}
}

func TestAPostThatFailsIsRepeatedWithItsIDAndGivenUp(t *testing.T) {
	t.Parallel()
	const secretURL = "https://hooks.example.com/services/canary"
	var ids, bodies []string
	s := &fakeStore{}
	e := newEngine(t, s, accounts(), func(r *http.Request) (*http.Response, error) {
		body := &bytes.Buffer{}
		_, _ = body.ReadFrom(r.Body)
		ids, bodies = append(ids, r.Header.Get("Webhook-Id")), append(bodies, body.String())
		return nil, errors.New("connection refused")
	})
	n := mailNotice()
	n.Incident.Began = n.Incident.Since
	n.Rule = incident.Rule{Channel: incident.Webhook, URL: seal.NewSecret(secretURL), Secret: seal.NewSecret("whsec_x")}
	var waits []time.Duration
	tries := 0
	for {
		r := e.post(t.Context(), n)
		tries++
		if strings.Contains(r.Error, "canary") || !strings.Contains(r.Error, "connection refused") {
			t.Fatalf("error = %q, want the cause without the URL", r.Error)
		}
		if r.Done {
			break
		}
		waits = append(waits, r.Again)
	}
	if tries != giveUp || waits[0] != soon || waits[1] != 2*soon || waits[len(waits)-1] != late {
		t.Errorf("%d tries with the waits %v", tries, waits)
	}
	if len(slices.Compact(ids)) != 1 || ids[0] != n.ID.String()+" whsec_x" || len(slices.Compact(bodies)) != 1 {
		t.Errorf("ids %q and bodies %q differ between tries", slices.Compact(ids), slices.Compact(bodies))
	}
}

func TestSlackGetsATextAndNoSignature(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	var body bytes.Buffer
	e := newEngine(t, &fakeStore{}, accounts(), func(r *http.Request) (*http.Response, error) {
		body.Reset()
		_, _ = body.ReadFrom(r.Body)
		if r.Header.Get("Webhook-Id") != "" {
			t.Error("it is signed")
		}
		return &http.Response{StatusCode: status, Body: http.NoBody}, nil
	})
	n := mailNotice()
	n.Rule = incident.Rule{Channel: incident.Slack, URL: seal.NewSecret("https://hooks.example.com/x")}
	if r := e.post(t.Context(), n); !r.Done || r.Error != "" || !strings.HasPrefix(body.String(), `{"text":"ses: the provider refuses the account\n`) {
		t.Errorf("%+v, %s", r, body.String())
	}
	status = http.StatusForbidden
	if r := e.post(t.Context(), n); r.Done || r.Error != "the answer was 403" {
		t.Errorf("%+v, want it tried again", r)
	}
}

// What was stored is told even if nobody can judge now, and by the replica that watches only.
func TestOnlyTheReplicaThatWatchesTells(t *testing.T) {
	t.Parallel()
	for _, mine := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := mailNotice()
			n.Rule = incident.Rule{Channel: incident.Slack, URL: seal.NewSecret("https://hooks.example.com/x")}
			s := &fakeStore{mine: mine, due: []incident.Notice{*n}}
			e := newEngine(t, s, accounts("ses"), func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); e.Run(ctx) }()
			time.Sleep(12 * time.Second)
			cancel()
			<-done
			told, gaveUp := 0, 0
			if mine {
				told, gaveUp = 1, 1
			}
			if s.leases != 3 || len(s.finished) != told || s.ended != gaveUp {
				t.Errorf("mine %t: %d looks, %d told, lease given up %d times", mine, s.leases, len(s.finished), s.ended)
			}
		})
	}
}
