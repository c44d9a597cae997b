package emulator_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

// resendBatch makes one call for several emails, with more headers.
func (b *server) resendBatch(t *testing.T, emails any, more map[string]string) answer {
	t.Helper()
	h := resendHeader()
	for name, value := range more {
		h[name] = value
	}
	return b.do(t, "POST", "/resend/emails/batch", toJSON(t, emails), h)
}

func permissive() map[string]string { return map[string]string{"x-batch-validation": "permissive"} }

// batchAnswer is the answer to a batch.
type batchAnswer struct {
	Data   []struct{ ID string }
	Errors []struct {
		Index   int
		Message string
	}
}

func batchOf(t *testing.T, a answer) (got batchAnswer) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("answer = %d %s, want 200", a.status, a.body)
	}
	fromJSON(t, a.body, &got)
	return got
}

func TestResendBatchTakesAllOrNoneUnlessItIsPermissive(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	good, bad := resendBody(), resendBody("to", "nobody")
	if a := b.resendBatch(t, []any{good, bad, good}, nil); a.status != 422 || !strings.Contains(a.body, "validation_error") || len(b.Ledger()) != 0 {
		t.Errorf("strict: %d %s with %d emails, want 422 and none", a.status, a.body, len(b.Ledger()))
	}
	strict := b.resendBatch(t, []any{good, good}, nil)
	if got := batchOf(t, strict); len(got.Data) != 2 || strings.Contains(strict.body, "errors") {
		t.Errorf("strict: %s, want two ids", strict.body)
	}
	files := []any{object{"filename": "a.txt", "content": "aGk="}}
	mixed := batchOf(t, b.resendBatch(t, []any{
		resendBody("subject", "first"), bad, resendBody("attachments", files), resendBody("scheduled_at", "in 1 min"),
		resendBody("from", ""), 17, resendBody("subject", "last"),
	}, permissive()))
	entries := b.Ledger()[2:]
	if len(mixed.Data) != 2 || len(entries) != 2 || mixed.Data[0].ID != entries[0].ProviderMessageID || mixed.Data[1].ID != entries[1].ProviderMessageID {
		t.Fatalf("permissive: %+v with the ledger %+v, want the ids of two emails in order", mixed, entries)
	}
	if entries[0].Subject != "first" || entries[1].Subject != "last" {
		t.Errorf("ledger = %+v, want the first and the last", entries)
	}
	for i, e := range mixed.Errors {
		if e.Index != i+1 || e.Message == "" {
			t.Errorf("error %d = %+v, want the position %d and a reason", i, e, i+1)
		}
	}
	if len(mixed.Errors) != 5 {
		t.Errorf("errors = %+v, want five", mixed.Errors)
	}
}

func TestResendBatchHasAHundredEmails(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	emails := make([]any, 101)
	for i := range emails {
		emails[i] = resendBody("subject", fmt.Sprint(i))
	}
	if a := b.resendBatch(t, emails, nil); a.status != 422 {
		t.Errorf("101 emails = %d %s, want 422", a.status, a.body)
	}
	for _, body := range []any{[]any{}, resendBody(), "text"} {
		if a := b.resendBatch(t, body, permissive()); a.status != 422 {
			t.Errorf("%v = %d %s, want 422", body, a.status, a.body)
		}
	}
	if a := b.resendBatch(t, emails[:100], nil); len(batchOf(t, a).Data) != 100 {
		t.Errorf("100 emails = %s", a.body)
	}
	if n := len(b.Ledger()); n != 100 {
		t.Errorf("%d emails are in the ledger, want 100", n)
	}
}

// A key stands for the whole call. An email of it that comes alone, with a key of its own, is another email.
func TestAResendKeyStandsForTheWholeBatch(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"resend":[{"mode":"accept_then_500","count":1}]}`)
	emails := []any{resendBody("subject", "a"), resendBody("subject", "b")}
	keyed := permissive()
	keyed["Idempotency-Key"] = "batch-1"
	if a := b.resendBatch(t, emails, keyed); a.status != 500 {
		t.Fatalf("answer = %d, want 500 after the emails were taken", a.status)
	}
	got := batchOf(t, b.resendBatch(t, emails, keyed))
	entries := b.Ledger()
	if len(entries) != 2 || len(got.Data) != 2 || got.Data[0].ID != entries[0].ProviderMessageID || got.Data[1].ID != entries[1].ProviderMessageID {
		t.Errorf("repeat = %+v with the ledger %+v, want the two emails of the first call", got, entries)
	}
	if a := b.resendBatch(t, emails[:1], keyed); a.status != 409 || !strings.Contains(a.body, "invalid_idempotent_request") {
		t.Errorf("another batch with the key = %d %s", a.status, a.body)
	}
	resendID(t, b.resend(t, emails[0], "m1"))
	if n := len(b.Ledger()); n != 3 {
		t.Errorf("%d emails are in the ledger, want the one that was sent alone as well", n)
	}
}

func TestAResendBatchCountsAsOneRequest(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	before := b.Stats()["resend"].Requests
	batchOf(t, b.resendBatch(t, []any{resendBody(), resendBody(), resendBody()}, nil))
	if n := b.Stats()["resend"].Requests - before; n != 1 {
		t.Errorf("%d requests are counted, want one", n)
	}
	if a := b.do(t, "POST", "/resend/emails/batch", "[]", map[string]string{"Authorization": "Bearer re_other"}); a.status != 401 {
		t.Errorf("a wrong key = %d %s", a.status, a.body)
	}
}
