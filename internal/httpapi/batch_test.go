package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func batchJSON(items ...string) string { return `{"messages":[` + strings.Join(items, ",") + `]}` }

func TestBatchJudgesEachMessageAlone(t *testing.T) {
	t.Parallel()
	good := sendJSON()
	tests := map[string]struct {
		body   string
		key    func(inputKeys) string
		want   []string
		stored int
	}{
		"all good":       {batchJSON(good, good), nil, []string{"", ""}, 2},
		"all bad":        {batchJSON(sendJSON("to", "[]"), `{}`), nil, []string{"required", "required"}, 0},
		"syntax of text": {batchJSON(good, sendJSON("text", `"\ud800"`), good), nil, []string{"", "malformed_json", ""}, 2},
		"invalid UTF-8":  {batchJSON(good, sendJSON("text", "\"\xff\""), good), nil, []string{"", "invalid_utf8", ""}, 2},
		"duplicate name": {batchJSON(`{"to":"a@b.co",`+good[1:], good), nil, []string{"duplicate_key", ""}, 1},
		"unknown field":  {batchJSON(sendJSON("x", "1"), good), nil, []string{"unknown_field", ""}, 1},
		"not an object":  {batchJSON("5", "null", good, "[]"), nil, []string{"expected_object", "expected_object", "", "expected_object"}, 1},
		"too deep":       {batchJSON(sendJSON("to", strings.Repeat("[", 40)+strings.Repeat("]", 40)), good), nil, []string{"too_deep", ""}, 1},
		"sender":         {batchJSON(good, sendJSON("from", `"a@evil.com"`)), restricted, []string{"", "sender_not_allowed"}, 1},
		"account":        {batchJSON(sendJSON("account", `"nobody"`), good), nil, []string{"unknown_account", ""}, 1},
		"white space":    {" { \"messages\" : [ " + good + " , " + good + " ] } \n", nil, []string{"", ""}, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newInputServer(t)
			row := inputRow{path: "/v1/send/batch", body: tt.body, key: tt.key, status: 202, answers: batchCodes(tt.want...)}
			row.check(t, s)
			if got := s.stored().messages; got != tt.stored {
				t.Errorf("messages stored = %d, want %d", got, tt.stored)
			}
		})
	}
}

func TestBatchEnvelopeIsStrict(t *testing.T) {
	t.Parallel()
	s := newInputServer(t)
	good := sendJSON()
	tests := map[string]struct {
		body   string
		status int
		code   string
	}{
		"no body":           {"", 400, "empty_body"},
		"a list":            {"[" + good + "]", 400, "expected_object"},
		"no messages":       {"{}", 422, "required"},
		"empty list":        {batchJSON(), 422, "required"},
		"messages null":     {`{"messages":null}`, 422, "wrong_type"},
		"messages object":   {`{"messages":{}}`, 422, "wrong_type"},
		"unknown field":     {`{"message":[` + good + `]}`, 422, "unknown_field"},
		"field behind":      {`{"messages":[` + good + `],"x":1}`, 422, "unknown_field"},
		"messages twice":    {`{"messages":[` + good + `],"messages":[` + good + `]}`, 400, "duplicate_key"},
		"truncated":         {`{"messages":[` + good, 400, "truncated_json"},
		"truncated at list": {`{"messages":`, 400, "truncated_json"},
		"truncated message": {`{"messages":[` + good[:len(good)-1], 400, "truncated_json"},
		"trailing data":     {batchJSON(good) + "x", 400, "trailing_data"},
		"broken message":    {batchJSON(`{"a":}`, good), 400, "malformed_json"},
		"1,001 messages":    {`{"messages":` + listOf(1001, func(int) string { return `{}` }) + `}`, 422, "too_many"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			row := inputRow{path: "/v1/send/batch", body: tt.body, status: tt.status, code: tt.code}
			row.check(t, s)
			if got := s.stored().messages; got != 0 {
				t.Errorf("messages stored = %d, want 0", got)
			}
		})
	}
}

func TestBatchOfAThousandKeepsItsOrder(t *testing.T) {
	t.Parallel()
	s := newInputServer(t)
	var want []string
	body := `{"messages":` + listOf(1000, func(i int) string {
		if i%3 == 0 {
			want = append(want, "domain_not_fqdn")
			return sendJSON("to", `"a@b"`)
		}
		want = append(want, "")
		return sendJSON("to", fmt.Sprintf(`"r%d@example.org"`, i))
	}) + `}`
	row := inputRow{path: "/v1/send/batch", body: body, status: 202, answers: batchCodes(want...)}
	row.check(t, s)
	if got := s.stored().messages; got != 666 {
		t.Errorf("messages stored = %d, want 666", got)
	}
}

func TestBatchRepeatedUnderItsKeySendsNothingTwice(t *testing.T) {
	t.Parallel()
	s := newInputServer(t)
	first, second, third := sendJSON(), sendJSON("subject", `"2"`), sendJSON("subject", `"3"`)
	post := func(body string, want ...string) {
		t.Helper()
		row := inputRow{path: "/v1/send/batch", body: body, header: http.Header{"Idempotency-Key": {"b"}}, status: 202, answers: batchCodes(want...)}
		row.check(t, s)
	}
	post(batchJSON(first, sendJSON("to", "[]"), third), "", "required", "")
	// The one that was refused is mended; the others are replayed.
	post(batchJSON(first, second, third), "", "", "")
	if got := s.stored().messages; got != 3 {
		t.Errorf("messages stored = %d, want 3", got)
	}
	// A message in another's place is another request.
	post(batchJSON(second, first, third), "idempotency_mismatch", "idempotency_mismatch", "")
	if got := s.stored().messages; got != 3 {
		t.Errorf("messages stored after a swap = %d, want 3", got)
	}
}

func TestBatchKeyLeavesRoomForTheIndex(t *testing.T) {
	t.Parallel()
	s := newInputServer(t)
	for n, status := range map[int]int{250: 202, 251: 400} {
		row := inputRow{path: "/v1/send/batch", body: batchJSON(sendJSON()), header: http.Header{"Idempotency-Key": {strings.Repeat("k", n)}}, status: status}
		row.check(t, s)
	}
}

func TestBatchIs202WhenAnythingWasStored(t *testing.T) {
	t.Parallel()
	b := batch{note: unnoted, items: make([]api.BatchItem, 2), subs: make([]*record.Submission, 2), index: []int{0, 1}}
	down := &record.Unavailable{Reason: "database", RetryAfter: time.Second}
	store := &answers{accepted: []record.Accepted{{ID: mail.NewID()}, {}}, errs: []error{nil, down}}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
	if err := b.accept(store, r); err != nil {
		t.Fatalf("accept with one stored: %v, want nil", err)
	}
	if b.items[0].SendResult == nil || b.items[1].Error == nil || b.items[1].Error.Status != http.StatusServiceUnavailable {
		t.Errorf("items = %+v, want a result and a 503", b.items)
	}
	store.errs[0] = down
	if err := b.accept(store, r); !errors.Is(err, down) {
		t.Errorf("accept with none stored = %v, want %v", err, down)
	}
}

// unnoted counts nothing.
func unnoted(record.Accepted, error, time.Duration) {}

// answers is a store that gives prepared answers to AcceptAll.
type answers struct {
	*fakeStore
	accepted []record.Accepted
	errs     []error
}

func (a *answers) AcceptAll(context.Context, []*record.Submission) ([]record.Accepted, []error) {
	return a.accepted, a.errs
}
