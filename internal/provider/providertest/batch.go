package providertest

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// togetherInOneCall holds a Batcher to what Send owes: one request, one outcome for each message, and never a class that
// promises more than the answer does.
func togetherInOneCall(t *testing.T, s Suite) {
	t.Helper()
	if _, ok := s.open(t, "http://127.0.0.1:1").(provider.Batcher); !ok {
		return
	}
	if s.AcceptBatch == nil || s.BatchIDs == nil {
		t.Fatal("Suite of a Batcher needs AcceptBatch and BatchIDs")
	}
	t.Run("accepts", func(t *testing.T) { t.Parallel(); batchAccepts(t, s) })
	t.Run("every status", func(t *testing.T) { t.Parallel(); batchEveryStatus(t, s) })
	t.Run("lost answers", func(t *testing.T) { t.Parallel(); batchLost(t, s) })
	t.Run("secrets stay out of errors", func(t *testing.T) { t.Parallel(); batchSecrets(t, s) })
}

// sendBatch makes one call for some messages and checks what holds for every outcome.
func (s Suite) sendBatch(ctx context.Context, t *testing.T, p provider.Provider, all []*provider.Send) []provider.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	batcher, ok := p.(provider.Batcher)
	if !ok {
		t.Fatal("the adapter is not a Batcher any more")
	}
	outcomes := batcher.SendBatch(ctx, all)
	if len(outcomes) != len(all) {
		t.Fatalf("%d outcomes for %d messages", len(outcomes), len(all))
	}
	for _, o := range outcomes {
		CheckNoSecret(t, o.Err, s.Secrets)
		if o.Err != nil {
			checkDetail(t, AsError(t, o.Err).Detail)
		}
	}
	return outcomes
}

// three messages, which a provider that wants the same content may get together, too.
func three() []*provider.Send {
	all := []*provider.Send{Numbered(0), Numbered(1), Numbered(2)}
	for _, s := range all {
		s.Key = s.Message.ID.String()
		s.Message.Subject, s.Message.Text, s.Message.HTML = "Your order", "It is on its way.", ""
	}
	return all
}

func idsOf(all []*provider.Send) []string {
	var ids []string
	for _, s := range all {
		ids = append(ids, s.Message.ID.String())
	}
	return ids
}

// batchAccepts sends messages in one request. One that the provider can't carry is left out of it, and harms no other.
func batchAccepts(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, s.AcceptBatch)
	all := three()
	for i, o := range s.sendBatch(t.Context(), t, p, all) {
		if o.Err != nil || o.Receipt.ProviderMessageID == "" {
			t.Errorf("message %d: %+v, %v, want an acceptance with an id", i, o.Receipt, o.Err)
		}
	}
	got := srv.take()
	if len(got) != 1 {
		t.Fatalf("%d requests for three messages, want 1", len(got))
	}
	if ids := s.BatchIDs(got[0].Request, got[0].body); !slices.Equal(ids, idsOf(all)) {
		t.Errorf("the call carried %q, want %q", ids, idsOf(all))
	}
	if key := got[0].Header.Get(cmp.Or(s.KeyHeader, "Idempotency-Key")); key != "" {
		t.Errorf("the call has the key %q, want none: a key stands for a call with one message", key)
	}
	all[1].Message.To = nil
	for range 1001 { // no provider takes more
		all[1].Message.To = append(all[1].Message.To, mail.Address{Email: "ann@example.org"})
	}
	all[1].To = all[1].Message.To
	outcomes := s.sendBatch(t.Context(), t, p, all)
	CheckClass(t, outcomes[1].Err, provider.Rejected)
	for _, i := range []int{0, 2} {
		CheckClass(t, outcomes[i].Err, provider.Accepted)
	}
	got = srv.take()
	if want := []string{idsOf(all)[0], idsOf(all)[2]}; len(got) != 1 || !slices.Equal(s.BatchIDs(got[0].Request, got[0].body), want) {
		t.Errorf("%d requests beside a message that can't be carried, want one with %q", len(got), want)
	}
}

// batchEveryStatus answers the whole call with a status. What would end a single message is Transient for those of a batch: the
// fault may be another's.
func batchEveryStatus(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, s.AcceptBatch)
	for status := 200; status < 600; status++ {
		body, header := "{}", http.Header(nil)
		if s.Answer != nil {
			body, header = s.Answer(status)
		}
		want, ok := s.WantByStatus[status]
		if !ok {
			want = esphttp.ByStatus(status)
		}
		if want == provider.Rejected || want == provider.BadRecipient {
			want = provider.Transient
		}
		srv.answer(fixed(status, header, body))
		for i, o := range s.sendBatch(t.Context(), t, p, three()) {
			if got := classOf(t, o.Err); got != want {
				t.Errorf("message %d, class of status %d = %s (%v), want %s", i, status, got, o.Err, want)
			}
		}
		if n := len(srv.take()); n != 1 {
			t.Errorf("status %d was asked for %d times, want once", status, n)
		}
	}
}

func classOf(t *testing.T, err error) provider.Class {
	t.Helper()
	if err == nil {
		return provider.Accepted
	}
	return AsError(t, err).Class
}

// batchLost loses the answer in several ways: exactly the messages of the call are Uncertain. A call that was never made is
// Transient.
func batchLost(t *testing.T, s Suite) {
	t.Helper()
	check := func(name string, outcomes []provider.Outcome, want provider.Class) {
		t.Helper()
		for i, o := range outcomes {
			if got := classOf(t, o.Err); got != want {
				t.Errorf("%s, message %d: %s (%v), want %s", name, i, got, o.Err, want)
			}
		}
	}
	srv, p := start(t, s, s.AcceptBatch)
	for name, h := range map[string]http.Handler{"reset": drop(true), "close": drop(false), "cut": cut(http.StatusOK), "cut 500": cut(http.StatusInternalServerError)} {
		srv.answer(h)
		check(name, s.sendBatch(t.Context(), t, p, three()), provider.Uncertain)
		srv.takeOne(t)
	}
	arrived := make(chan struct{}, 8)
	srv.answer(hanging(arrived))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	check("cancel after the write", s.sendBatch(ctx, t, p, three()), provider.Uncertain)
	srv.takeOne(t)
	check("cancel before the write", s.sendBatch(ctx, t, p, three()), provider.Transient)
	srv.Close()
	check("refused connection", s.sendBatch(t.Context(), t, p, three()), provider.Transient)
}

func batchSecrets(t *testing.T, s Suite) {
	t.Helper()
	body := s.Fault("bad key " + strings.Join(s.Secrets, " and "))
	srv, p := start(t, s, s.AcceptBatch)
	for _, status := range []int{400, 401, 403, 422, 429, 500, 503} {
		srv.answer(fixed(status, nil, body))
		for _, o := range s.sendBatch(t.Context(), t, p, three()) { // looks for the secrets
			if o.Err == nil {
				t.Fatalf("status %d was taken for an acceptance", status)
			}
		}
	}
}
