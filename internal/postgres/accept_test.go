package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestAcceptStoresTheWholeMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := with(func(s *record.Submission) {
		m := s.Message
		m.Cc = []mail.Address{{Email: "bob@example.org", Name: `B "o" b`}}
		m.Bcc = []mail.Address{{Email: "cy@example.net"}}
		m.ReplyTo = []mail.Address{{Email: "help@example.com"}}
		m.HTML = "<p>Thank you.</p>"
		m.Headers = []mail.Header{{Name: "X-Order", Value: "42"}}
		m.Attachments = []mail.Attachment{{Filename: "a.pdf", ContentType: "application/pdf", Content: []byte{0, 1, 255}}}
		m.Tags = []string{`a"b`, `back\slash`, "{x,y}", "", "NULL", "ö"}
		m.Metadata = map[string]string{"order_id": "42"}
		m.OnAmbiguous = mail.Never
	})
	got, err := b.db.Accept(t.Context(), s)
	must(t, err)
	want := record.Accepted{ID: s.Message.ID, Status: mail.Queued, Recipients: []record.RecipientStatus{
		{Email: "ann@example.org", Status: mail.Queued}, {Email: "bob@example.org", Status: mail.Queued}, {Email: "cy@example.net", Status: mail.Queued},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	v, err := b.db.Message(t.Context(), mail.DefaultTenant, s.Message.ID)
	must(t, err)
	if diff := cmp.Diff(s.Message, v.Message); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	for i := range v.Recipients {
		if !v.Recipients[i].UpdatedAt.Equal(s.Message.CreatedAt) {
			t.Errorf("recipient %d updated at %s, want %s", i, v.Recipients[i].UpdatedAt, s.Message.CreatedAt)
		}
		v.Recipients[i].UpdatedAt = time.Time{}
	}
	if diff := cmp.Diff(s.Message.Recipients(), v.Recipients); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
	if got := list[string](t, b, `SELECT unnest(tags) FROM message`); !slices.Equal(got, s.Message.Tags) {
		t.Errorf("tags = %q, want %q", got, s.Message.Tags)
	}
	if got := get[int32](t, b, `SELECT lane FROM ready WHERE id = $1 AND due <= now() AND attempts = 0 AND NOT held`, [16]byte(s.Message.ID)); got != lane {
		t.Errorf("lane = %d, want %d", got, lane)
	}
}

func TestAcceptMakesScheduledMessageDueAtItsTime(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	at := time.Now().UTC().Truncate(time.Millisecond).Add(time.Hour)
	s := with(func(s *record.Submission) { s.Message.SendAt = at })
	got, err := b.db.Accept(t.Context(), s)
	must(t, err)
	if got.Status != mail.Scheduled || got.Recipients[0].Status != mail.Scheduled {
		t.Errorf("answer = %+v, want scheduled", got)
	}
	if due := get[time.Time](t, b, `SELECT due FROM ready`); !due.Equal(at) {
		t.Errorf("due = %s, want %s", due, at)
	}
}

func TestAcceptMarksSuppressedRecipients(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "gone@example.org", Reason: "manual", Origin: "api"}))
	other, err := b.db.CreateTenant(t.Context(), "tester", record.Tenant{Name: "other", Weight: 100})
	must(t, err)
	for _, tc := range []struct {
		name          string
		s             *record.Submission
		status, place string
	}{
		{"some", submission("ann@example.org", "gone@example.org"), "queued: queued suppressed", "ready"},
		{"all", submission("gone@example.org"), "suppressed: suppressed", "settled"},
		{"of another tenant", with(func(s *record.Submission) {
			s.Message.Tenant, s.Message.To[0].Email = other.ID, "gone@example.org"
		}), "queued: queued", "ready"},
	} {
		a, err := b.db.Accept(t.Context(), tc.s)
		must(t, err)
		if got := b.status(t, a.ID); got != tc.status {
			t.Errorf("%s: stored %q, want %q", tc.name, got, tc.status)
		}
		if got := b.place(t, a.ID); got != tc.place {
			t.Errorf("%s: message is %s, want %s", tc.name, got, tc.place)
		}
		told := string(a.Status) + ":"
		for _, r := range a.Recipients {
			told += " " + string(r.Status)
		}
		if told != tc.status {
			t.Errorf("%s: told %q, want %q", tc.name, told, tc.status)
		}
	}
}

func TestConcurrentAcceptsShareTransactionsAndGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var mu sync.Mutex
	commits, stored := 0, 0
	db := b.open(t, Options{Observe: func(batch string, size int, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if batch != "accept" || took <= 0 {
			t.Errorf("observed %q after %s", batch, took)
		}
		commits, stored = commits+1, stored+size
	}})
	const n = 300
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := submission(fmt.Sprintf("r%d@example.org", i))
			a, err := db.Accept(t.Context(), s)
			if err != nil || a.ID != s.Message.ID || a.Recipients[0].Email != s.Message.To[0].Email || a.Replayed {
				t.Errorf("Accept(%s) = %+v, %v", s.Message.ID, a, err)
			}
		})
	}
	wg.Wait()
	if got := get[int](t, b, `SELECT count(*) FROM ready JOIN message USING (id) JOIN body USING (id) JOIN recipient ON message_id = id`); got != n {
		t.Errorf("%d messages are complete, want %d", got, n)
	}
	mu.Lock()
	defer mu.Unlock()
	if stored != n || commits > n/2 {
		t.Errorf("%d messages in %d transactions, want %d in at most %d", stored, commits, n, n/2)
	}
}

func TestOneTransactionTakesNoMoreThanItCanWriteInTime(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var mu sync.Mutex
	most := 0
	db := b.open(t, Options{Observe: func(_ string, size int, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		most = max(most, size)
	}})
	subs := make([]*record.Submission, 18)
	for i := range subs {
		subs[i] = submission()
		subs[i].Message.Text = strings.Repeat("x", 512<<10)
	}
	_, errs := db.AcceptAll(t.Context(), subs)
	for _, err := range errs {
		if _, slow := errors.AsType[*record.Unavailable](err); !slow { // a busy machine may not write 9 MB in time
			must(t, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if most < 1 || most > 8 {
		t.Errorf("%d messages of half a megabyte shared a transaction, want at most 8", most)
	}
}

func TestPoisonedMessageFailsAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var subs []*record.Submission
	bad := map[int]bool{0: true, 13: true, 37: true, 38: true}
	for i := range 40 {
		s := submission()
		s.Key = fmt.Sprintf("key-%d", i)
		subs = append(subs, s)
	}
	subs[0].Message.Subject = "nul \x00"
	subs[13].Message.To[0].Name = "not utf-8 \xff"
	subs[37].Message.Tags = []string{"nul \x00"}
	subs[38].Message.OnAmbiguous = "whatever"
	accepted, errs := b.db.AcceptAll(t.Context(), subs)
	for i, s := range subs {
		switch {
		case bad[i] && errs[i] == nil:
			t.Errorf("submission %d was accepted", i)
		case bad[i]:
			if _, is := errors.AsType[*record.Unavailable](errs[i]); is {
				t.Errorf("submission %d: %v, want an error that does not invite to try again", i, errs[i])
			}
		case errs[i] != nil || accepted[i].ID != s.Message.ID:
			t.Errorf("submission %d beside a poisoned one: %+v, %v", i, accepted[i], errs[i])
		}
	}
	if got := get[int](t, b, `SELECT count(*) FROM message JOIN ready USING (id) JOIN idempotency ON message_id = id`); got != 36 {
		t.Errorf("%d messages stored, want 36", got)
	}
	if got := get[int](t, b, `SELECT count(*) FROM idempotency`); got != 36 {
		t.Errorf("%d keys stored, want 36: a refused message must not keep its key", got)
	}
}

func TestAcceptRefusesAtOnceWhenItsQueueIsFull(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, tc := range []struct {
		name string
		o    Options
		size int
	}{
		{"entries", Options{AcceptQueue: 4}, 10},
		{"bytes", Options{AcceptQueueBytes: 64 << 10}, 20 << 10},
	} {
		db := b.open(t, tc.o)
		hold := b.begin(t)
		_, err := hold.Exec(t.Context(), `LOCK TABLE ready IN ACCESS EXCLUSIVE MODE`)
		must(t, err)
		const n = 12 // two workers take one each at once, or a few; not all can wait
		answers := make(chan error, n)
		for range n {
			go func() {
				s := submission()
				s.Message.Text = string(make([]byte, tc.size))
				_, err := db.Accept(t.Context(), s)
				answers <- err
			}()
		}
		first := <-answers // while nothing can commit
		u, is := errors.AsType[*record.Unavailable](first)
		if !is || u.Reason != "queue_full" || u.RetryAfter <= 0 {
			t.Errorf("%s: first answer %v, want queue_full with a time to come back", tc.name, first)
		}
		must(t, hold.Rollback(t.Context()))
		for range n - 1 {
			if err := <-answers; err != nil {
				if u, is := errors.AsType[*record.Unavailable](err); !is || u.Reason != "queue_full" {
					t.Errorf("%s: %v, want queue_full or an answer", tc.name, err)
				}
			}
		}
		if _, err := db.Accept(t.Context(), submission()); err != nil {
			t.Errorf("%s: after the queue emptied: %v", tc.name, err)
		}
	}
}

func TestAcceptMakesMissingPartitions(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	for _, name := range list[string](t, b, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = ANY (ARRAY['message', 'body', 'recipient', 'attempt']::regclass[])`) {
		b.exec(t, `DROP TABLE `+name)
	}
	var wg sync.WaitGroup
	for range 20 { // both committers meet the hole
		wg.Go(func() {
			_, err := b.db.Accept(t.Context(), submission())
			for isCode(err, "55P03") { // a busy machine makes them slower than others wait
				_, err = b.db.Accept(t.Context(), submission())
			}
			if err != nil {
				t.Errorf("accept without partitions: %v", err)
			}
		})
	}
	wg.Wait()
	if n := get[int](t, b, `SELECT count(*) FROM message JOIN body USING (id) JOIN ready USING (id)`); n != 20 {
		t.Errorf("%d messages stored, want 20", n)
	}
}
