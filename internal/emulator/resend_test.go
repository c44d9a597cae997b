package emulator_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

func resendBody(change ...any) object {
	m := object{
		"from": "Shop <shop@example.com>", "to": []any{"Ann <ann@example.org>"}, "subject": "Hello", "text": "hi",
		"tags": []any{object{"name": "gw_msg", "value": "m1"}},
	}
	for i := 0; i < len(change); i += 2 {
		m[change[i].(string)] = change[i+1] //nolint:forcetypeassert // pairs of a name and a value
	}
	return m
}

// resend makes one send, with an idempotency key if one is given.
func (b *server) resend(t *testing.T, body any, idempotency string) answer {
	t.Helper()
	h := resendHeader()
	if idempotency != "" {
		h["Idempotency-Key"] = idempotency
	}
	return b.do(t, "POST", "/resend/emails", toJSON(t, body), h)
}

func resendHeader() map[string]string {
	return map[string]string{"Authorization": "Bearer " + key("resend", "api_key"), "Content-Type": "application/json"}
}

func resendID(t *testing.T, a answer) string {
	t.Helper()
	var got struct{ ID string }
	fromJSON(t, a.body, &got)
	if a.status != http.StatusOK || got.ID == "" {
		t.Fatalf("answer = %d %s, want an id", a.status, a.body)
	}
	return got.ID
}

func TestResendTakesAKeyOnce(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	first := resendID(t, b.resend(t, resendBody(), "m1"))
	if again := resendID(t, b.resend(t, resendBody(), "m1")); again != first {
		t.Errorf("the repeat was answered %s, want %s", again, first)
	}
	if other := b.resend(t, resendBody("subject", "Other"), "m1"); other.status != 409 || !strings.Contains(other.body, "invalid_idempotent_request") {
		t.Errorf("another body with the key = %d %s", other.status, other.body)
	}
	if long := b.resend(t, resendBody(), strings.Repeat("k", 257)); long.status != 400 || !strings.Contains(long.body, "invalid_idempotency_key") {
		t.Errorf("a key that is too long = %d %s", long.status, long.body)
	}
	if second := resendID(t, b.resend(t, resendBody(), "m2")); second == first {
		t.Error("another key brought the same email")
	}
	if n := len(b.Ledger()); n != 2 {
		t.Errorf("%d emails are in the ledger, want 2", n)
	}
}

// A call that was refused, or failed before it was taken, leaves its key free.
func TestAResendKeyIsKeptWithItsEmailOnly(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"resend":[{"mode":"error","status":500,"count":1},{"mode":"accept_then_500","count":1}]}`)
	if failed := b.resend(t, resendBody(), "m1"); failed.status != 500 {
		t.Fatalf("answer = %d, want the scripted 500", failed.status)
	}
	if lost := b.resend(t, resendBody(), "m1"); lost.status != 500 {
		t.Fatalf("answer = %d, want 500 after the email was taken", lost.status)
	}
	id := resendID(t, b.resend(t, resendBody(), "m1"))
	entries := b.Ledger()
	if len(entries) != 1 || entries[0].ProviderMessageID != id {
		t.Errorf("ledger = %+v, want one email, %s", entries, id)
	}
}

func TestResendRefusesWhatItDocuments(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	for name, tc := range map[string]struct {
		body   object
		status int
		want   string
	}{
		"no from":    {resendBody("from", ""), 422, "missing_required_field"},
		"bad from":   {resendBody("from", "nobody"), 422, "invalid_from_address"},
		"no to":      {resendBody("to", []any{}), 422, "missing_required_field"},
		"bad to":     {resendBody("to", "nobody"), 422, "validation_error"},
		"no subject": {resendBody("subject", ""), 422, "missing_required_field"},
		"no content": {resendBody("text", ""), 422, "validation_error"},
		"bad tag":    {resendBody("tags", []any{object{"name": "a b", "value": "c"}}), 422, "validation_error"},
		"empty file": {resendBody("attachments", []any{object{"filename": "a.txt", "content": ""}}), 422, "invalid_attachment"},
	} {
		if a := b.resend(t, tc.body, ""); a.status != tc.status || !strings.Contains(a.body, tc.want) {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.body, tc.status, tc.want)
		}
	}
	bad := b.do(t, "POST", "/resend/emails", toJSON(t, resendBody()), map[string]string{"Authorization": "Bearer re_other"})
	if bad.status != 401 {
		t.Errorf("a wrong key = %d %s", bad.status, bad.body)
	}
}

func TestResendListsNewestFirstInPages(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	var ids []string
	for _, subject := range []string{"one", "two", "three"} {
		ids = append(ids, resendID(t, b.resend(t, resendBody("subject", subject), "")))
	}
	type list struct {
		HasMore bool `json:"has_more"`
		Data    []struct{ ID string }
	}
	var first, second list
	fromJSON(t, b.do(t, "GET", "/resend/emails?limit=2", "", resendHeader()).body, &first)
	if len(first.Data) != 2 || !first.HasMore || first.Data[0].ID != ids[2] {
		t.Fatalf("first page = %+v, want the newest two of %v", first, ids)
	}
	fromJSON(t, b.do(t, "GET", "/resend/emails?limit=2&after="+first.Data[1].ID, "", resendHeader()).body, &second)
	if len(second.Data) != 1 || second.HasMore || second.Data[0].ID != ids[0] {
		t.Errorf("second page = %+v, want the oldest of %v", second, ids)
	}
	one := b.do(t, "GET", "/resend/emails/"+ids[0], "", resendHeader())
	if one.status != 200 || !strings.Contains(one.body, `"value":"m1"`) {
		t.Errorf("email = %d %s, want it with its tags", one.status, one.body)
	}
}

const (
	resendSigningKey = "0123456789abcdefghijklmn"
	resendSecret     = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u" // with the key in base64
)

// resendVerifies checks a call as Resend's page "Verify Webhooks Requests" says.
func resendVerifies(c hookCall) bool {
	mac := hmac.New(sha256.New, []byte(resendSigningKey))
	mac.Write([]byte(c.header.Get("svix-id") + "." + c.header.Get("svix-timestamp") + "." + c.body))
	return c.header.Get("svix-signature") == "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestResendSignsItsEvents(t *testing.T) {
	t.Parallel()
	in := newInbox(t, nil)
	b := start(t, fast("resend", emulator.Hook{"url": in.URL, "secret": resendSecret}))
	resendID(t, b.resend(t, resendBody("to", "bounce@example.org"), ""))
	for _, c := range in.wait(t, 2) {
		if !resendVerifies(c) {
			t.Errorf("the signature of %v is another", c.header)
		}
	}
}
