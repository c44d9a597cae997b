package app

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// metrics reads what a replica says of itself.
func (b *bench) metrics(t *testing.T, r *replica) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.ops+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestARunningServiceRaisesTheAlarmOverALostMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	if _, err := b.rows.Exec(t.Context(), `
		INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
			SELECT uuid_floor(now()), 1, 'queued', 'transactional', 'a@example.com', '', '{}', 'never', now(), now() + interval '1 day', now()`); err != nil {
		t.Fatal(err)
	}
	r := b.start(t)
	eventually(t, settleTime, "the books are checked", func() bool {
		return strings.Contains(b.metrics(t, r), "\nsendgate_invariant_violations{kind=\"lost\"} 1\n")
	})
	if text := b.metrics(t, r); !strings.Contains(text, "\nsendgate_invariant_violations{kind=\"twice\"} 0\n") {
		t.Error("what is in order does not show as 0")
	}
}
