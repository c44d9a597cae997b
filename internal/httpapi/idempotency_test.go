package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

func TestARepeatIsAnsweredHoweverLateItComes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := r.clock.now().Add(time.Minute).Format(time.RFC3339)
	late := r.clock.now().Add(2 * time.Hour).Format(time.RFC3339)
	body := `{"from":"shop@example.com","to":["ann@example.org"],"subject":"s","text":"t","send_at":"` + at + `","expires_at":"` + late + `"}`
	first := r.do(http.MethodPost, "/v1/send", r.send, body, "Idempotency-Key", "k")
	if first.status != http.StatusAccepted {
		t.Fatalf("first = %d %s", first.status, first.body)
	}
	r.clock.move(24 * time.Hour)
	again := r.do(http.MethodPost, "/v1/send", r.send, body, "Idempotency-Key", "k")
	if again.status != http.StatusAccepted || string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("repeat after a day = %d %s, want the first answer", again.status, again.body)
	}
	for name, refused := range map[string]answer{
		"without a key":  r.do(http.MethodPost, "/v1/send", r.send, body),
		"with a new key": r.do(http.MethodPost, "/v1/send", r.send, body, "Idempotency-Key", "other"),
		"other message":  r.do(http.MethodPost, "/v1/send", r.send, strings.Replace(body, `"t"`, `"u"`, 1), "Idempotency-Key", "k"),
		"other mistake":  r.do(http.MethodPost, "/v1/send", r.send, strings.Replace(body, `"ann@`, `"ann@@`, 1), "Idempotency-Key", "k"),
	} {
		if refused.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s, want 422", name, refused.status, refused.body)
		}
	}
	if n := len(r.store.messages); n != 1 {
		t.Errorf("messages stored = %d, want 1", n)
	}
}

func TestARepeatedBatchIsAnsweredItemByItem(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := r.clock.now().Add(time.Minute).Format(time.RFC3339)
	item := `{"from":"shop@example.com","to":["ann@example.org"],"subject":"s","text":"t"`
	body := `{"messages":[` + item + `,"send_at":"` + at + `"},` + item + `}]}`
	first := r.do(http.MethodPost, "/v1/send/batch", r.send, body, "Idempotency-Key", "k")
	r.clock.move(24 * time.Hour)
	again := r.do(http.MethodPost, "/v1/send/batch", r.send, body, "Idempotency-Key", "k")
	var was, is api.BatchResult
	if err := json.Unmarshal(first.body, &was); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again.body, &is); err != nil {
		t.Fatal(err)
	}
	for i := range was.Results {
		if is.Results[i].SendResult == nil || is.Results[i].ID != was.Results[i].ID {
			t.Errorf("item %d of the repeat = %+v, want id %s", i, is.Results[i], was.Results[i].ID)
		}
	}
}
