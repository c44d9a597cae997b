package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// flying is a message to three recipients whose call has started.
func (b *bed) flying(t *testing.T) flight {
	t.Helper()
	return b.fly(t, submission("ann@example.org", "bob@example.org", "cy@example.org"))
}

// changes gives the recipients 0, 1, 2 … the statuses.
func changes(status ...mail.Status) []queue.RecipientChange {
	var cs []queue.RecipientChange
	for n, s := range status {
		if s != "" {
			cs = append(cs, queue.RecipientChange{N: n, Status: s, Detail: "because " + string(s)})
		}
	}
	return cs
}

// outcome is what a test wants to find after a result.
type outcome struct {
	place, status, attempts string
}

func (b *bed) outcome(t *testing.T, id mail.ID) outcome {
	t.Helper()
	return outcome{b.place(t, id), b.status(t, id), b.attempts(t, id)}
}

func TestRecordSettlesEachKindOfResult(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	avoid := map[string]queue.Avoid{"relay": {Why: "503", Until: time.Now().Add(time.Minute).UTC().Truncate(time.Second)}}
	for _, tc := range []struct {
		name string
		r    queue.Result
		want outcome
		next string // of the ready or unknown row
	}{
		{
			"accepted",
			queue.Result{Class: "accepted", ProviderMessageID: "pm-1", Recipients: changes("sent", "sent", "sent")},
			outcome{"settled", "sent: sent sent sent", "accepted/response"},
			"",
		},
		{
			"accepted for some, others later",
			queue.Result{Class: "accepted", Recipients: changes("sent", "failed"), Requeue: &queue.Requeue{In: time.Minute, Tries: 1}},
			outcome{"ready", "queued: sent failed queued", "accepted/response"},
			"1 1 60 f",
		},
		{
			"transient",
			queue.Result{Class: "transient", Status: 503, Code: "busy", Error: "try later", Requeue: &queue.Requeue{Tries: 1, Avoid: avoid}},
			outcome{"ready", "queued: queued queued queued", "transient/response"},
			"1 1 0 f " + `{"relay": {"why": "503", "until": "` + avoid["relay"].Until.Format(time.RFC3339) + `"}}`,
		},
		{
			"throttled",
			queue.Result{Class: "throttled", Status: 429, Requeue: &queue.Requeue{Tries: 0}},
			outcome{"ready", "queued: queued queued queued", "throttled/response"},
			"1 0 0 f",
		},
		{
			"held",
			queue.Result{Class: "misconfigured", Status: 401, Requeue: &queue.Requeue{In: 5 * time.Second, Held: true}},
			outcome{"ready", "queued: queued queued queued", "misconfigured/response"},
			"1 0 5 t",
		},
		{
			"rejected",
			queue.Result{Class: "rejected", Status: 400, Recipients: changes("failed", "failed", "failed")},
			outcome{"settled", "failed: failed failed failed", "rejected/response"},
			"",
		},
		{
			"bad recipient",
			queue.Result{Class: "bad_recipient", Recipients: changes("", "suppressed"), Requeue: &queue.Requeue{}},
			outcome{"ready", "queued: queued suppressed queued", "bad_recipient/response"},
			"1 0 0 f",
		},
		{
			"uncertain",
			queue.Result{Class: "uncertain", Error: "EOF", Recipients: changes("unknown", "unknown", "unknown"), Unknown: &queue.Hanging{DecideIn: time.Minute, Policy: mail.Resend}},
			outcome{"unknown", "unknown: unknown unknown unknown", "uncertain/response"},
			"resend 1 60",
		},
		{
			"aborted",
			queue.Result{Class: queue.Aborted, Error: "nothing was sent", Requeue: &queue.Requeue{Tries: 2}},
			outcome{"ready", "queued: queued queued queued", "aborted/response"},
			"1 2 0 f",
		},
		{
			"all suppressed meanwhile",
			queue.Result{Recipients: changes("suppressed", "suppressed", "suppressed")},
			outcome{"settled", "suppressed: suppressed suppressed suppressed", ""},
			"",
		},
	} {
		f := b.flying(t)
		if tc.r.Class == "" { // found before anything was announced
			b.exec(t, `DELETE FROM attempt`)
			b.exec(t, `UPDATE inflight SET started_at = NULL`)
		}
		tc.r.ID, tc.r.N = f.id, 1
		if !b.record(t, f.owner, tc.r) {
			t.Errorf("%s: the claim was not ours", tc.name)
		}
		if got := b.outcome(t, f.id); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
		next := strings.Join(list[string](t, b, `SELECT concat_ws(' ', attempts, tries, extract(epoch FROM due - now())::int / 5 * 5, held, avoid)
			FROM ready WHERE id = $1 UNION ALL
			SELECT concat_ws(' ', policy, n, extract(epoch FROM decide_at - since)::int) FROM unknown WHERE id = $1`, [16]byte(f.id)), " ")
		if next = strings.Replace(next, " 55 ", " 60 ", 1); next != tc.next { // a minute less what the test took
			t.Errorf("%s: next is %q, want %q", tc.name, next, tc.next)
		}
		if b.record(t, f.owner, tc.r) {
			t.Errorf("%s: recorded twice", tc.name)
		}
		if got := b.outcome(t, f.id); got != tc.want {
			t.Errorf("%s: after a second record got %+v, want %+v", tc.name, got, tc.want)
		}
		b.exec(t, `DELETE FROM ready`)
	}
}

func TestRecordKeepsWhatTheProviderSaid(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.flying(t)
	b.record(t, f.owner, queue.Result{
		ID: f.id, N: 1, Class: "bad_recipient", Status: 422, Code: "406", Error: "inactive", ProviderMessageID: "pm-7",
		Recipients: changes("sent", "suppressed", "failed"),
	})
	got := get[string](t, b, `SELECT concat_ws('|', status, code, error, provider_message_id, finished_at >= started_at) FROM attempt`)
	if want := "422|406|inactive|pm-7|t"; got != want {
		t.Errorf("attempt = %s, want %s", got, want)
	}
	got = get[string](t, b, `SELECT string_agg(detail, '|' ORDER BY n) FROM recipient`)
	if want := "because sent|because suppressed|because failed"; got != want {
		t.Errorf("details = %s, want %s", got, want)
	}
}

func TestAttemptNumberIsFreeAgainWhenNoCallWasMade(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.acceptN(t, 1)[0]
	owner, account := b.replica(t), b.relay(t)
	for range 3 {
		d := b.claim(t, owner, account, 1)[0]
		if d.Attempts != 0 || d.Tries != 4 && d.Tries != 0 {
			t.Errorf("claimed with %d attempts and %d tries", d.Attempts, d.Tries)
		}
		if !b.record(t, owner, queue.Result{ID: id, N: 1, Requeue: &queue.Requeue{Tries: 4}}) {
			t.Error("the claim was not ours")
		}
	}
	d := b.claim(t, owner, account, 1)[0]
	if !b.intend(t, owner, intent(d, account)) {
		t.Error("the number was not free")
	}
}

func TestRecordDoesNotOverwriteWhatAnEventSaid(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.flying(t)
	b.exec(t, `UPDATE recipient SET status = 'delivered', detail = 'by webhook' WHERE n = 0`)
	b.exec(t, `UPDATE recipient SET status = 'bounced' WHERE n = 1`)
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", Recipients: changes("sent", "sent", "sent")})
	want := outcome{"settled", "bounced: delivered bounced sent", "accepted/response"}
	if got := b.outcome(t, f.id); got != want {
		t.Errorf("got %+v, want %+v: the message shows the worst of what its recipients are now", got, want)
	}
	if got := get[string](t, b, `SELECT detail FROM recipient WHERE n = 0`); got != "by webhook" {
		t.Errorf("detail = %q", got)
	}
}

func TestRecordParksOnceAndSaysSo(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var flights []flight
	for range 5 {
		flights = append(flights, b.flying(t))
	}
	version := b.version(t)
	for i, f := range flights {
		park := &queue.Park{Account: f.account, Reason: "401 bad key"}
		if i >= 3 {
			park.SenderDomain = "example.com"
		}
		b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "misconfigured", Requeue: &queue.Requeue{}, Park: park})
	}
	c, err := b.db.Config(t.Context())
	must(t, err)
	got := ""
	for _, p := range c.Account("relay").Parked {
		got += fmt.Sprintf("%q: %s; ", p.SenderDomain, p.Reason)
	}
	if want := `"": 401 bad key; "example.com": 401 bad key; `; got != want {
		t.Errorf("parked %s, want %s", got, want)
	}
	if v := b.version(t); v != version+2 {
		t.Errorf("the configuration moved by %d versions, want 2: one per park", v-version)
	}
	audit, err := b.db.Audit(t.Context(), record.AuditFilter{Limit: 100})
	must(t, err)
	got = ""
	for _, e := range audit {
		if e.Action == "account.park" {
			got += fmt.Sprintf("%s %s %s; ", e.Actor, e.Target, e.Detail)
		}
	}
	want := `system relay {"reason": "401 bad key", "sender_domain": "example.com"}; system relay {"reason": "401 bad key", "sender_domain": ""}; `
	if got != want {
		t.Errorf("audit says %s\nwant %s", got, want)
	}
}

func TestBlockIsSharedAndNeverShortened(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, step := range []struct{ wait, want time.Duration }{
		{time.Minute, time.Minute}, {time.Second, time.Minute}, {time.Hour, time.Hour}, {time.Minute, time.Hour},
	} {
		f := b.flying(t)
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 1, Class: "throttled", Requeue: &queue.Requeue{}, Block: &queue.Block{Account: f.account, For: step.wait, Reason: "429"},
		})
		b.exec(t, `DELETE FROM ready`)
		blocks, err := b.db.Blocks(t.Context())
		must(t, err)
		if got := blocks[f.account]; len(blocks) != 1 || got > step.want || got < step.want-30*time.Second {
			t.Errorf("after a 429 for %s: blocked for %v, want %s", step.wait, blocks, step.want)
		}
	}
	must(t, b.db.ResumeAccount(t.Context(), "tester", "relay"))
	if blocks, err := b.db.Blocks(t.Context()); len(blocks) != 0 || err != nil {
		t.Errorf("Blocks after a resume = %v, %v", blocks, err)
	}
}

func TestRecordsOfManyCallsShareTransactions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	owner := b.replica(t)
	ids := b.acceptN(t, 300)
	accounts := []int32{b.account(t, "one"), b.account(t, "two"), b.account(t, "three")}
	for i := 0; i < 300; i += 100 {
		for _, d := range b.claim(t, owner, accounts[i/100], 100) {
			b.exec(t, `UPDATE inflight SET started_at = now() WHERE id = $1`, [16]byte(d.ID))
		}
	}
	commits := make(chan int, 1000)
	db := b.open(t, Options{Observe: func(_ string, size int, _ time.Duration) { commits <- size }})
	other := b.open(t, Options{})
	errs := make(chan error, 300)
	for i, id := range ids {
		go func() {
			r := queue.Result{
				ID: id, N: 1, Class: "throttled", Requeue: &queue.Requeue{In: time.Hour}, Settle: &queue.Settle{At: time.Now(), Recipients: 1},
				Block: &queue.Block{Account: accounts[(i*7)%3], For: time.Duration(i) * time.Second, Reason: "429"},
			}
			ours, err := []*DB{db, other}[i%2].Record(t.Context(), owner, r)
			if err == nil && !ours {
				err = fmt.Errorf("result %d was not ours", i)
			}
			errs <- err
		}()
	}
	for range ids {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := len(commits); n == 0 || n > 75 {
		t.Errorf("150 results took %d transactions, want at most 75", n)
	}
	if n := get[int](t, b, `SELECT count(*) FROM ready WHERE attempts = 1`); n != 300 {
		t.Errorf("%d messages are ready again, want 300", n)
	}
}
