package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// suppressions lists all rows, with until when they last.
func (b *bed) suppressions(t *testing.T) []string {
	t.Helper()
	return list[string](t, b, `SELECT format('%s %s %s %s by %s, %s', tenant_id, email, stream, reason, origin,
			CASE WHEN expires_at IS NULL THEN 'for good' WHEN expires_at <= now() THEN 'expired'
			     WHEN expires_at > now() + interval '2 days' THEN 'for long' ELSE 'for a while' END)
		FROM suppression ORDER BY tenant_id, email, stream`)
}

// What stops mail for good is not undone when an earlier suppression, which was to expire, would have ended.
func TestSuppressionForGoodOutlastsOneThatWasToExpire(t *testing.T) {
	t.Parallel()
	for _, was := range []string{"", "+ interval '1 day'", "- interval '1 day'"} { // none, in force, expired
		t.Run(was, func(t *testing.T) { // each gives its database back
			b := newBed(t)
			before := func(stream string) {
				b.exec(t, `DELETE FROM suppression`)
				if was != "" {
					b.exec(t, `INSERT INTO suppression (tenant_id, email, stream, reason, origin, created_at, expires_at)
						VALUES (1, 'ann@example.org', $1, 'manual', 'api', now() - interval '9 days', now() `+was+`)`, stream)
				}
			}
			check := func(what, want string) {
				t.Helper()
				if diff := cmp.Diff([]string{want}, b.suppressions(t)); diff != "" {
					t.Errorf("%s over one %q (-want +got):\n%s", what, was, diff)
				}
				if n := get[int](t, b, `SELECT count(*) FROM suppression WHERE created_at > now() - interval '1 hour' AND account = 'relay' AND message_id IS NOT NULL`); n != 1 {
					t.Errorf("%s over one %q does not say where it comes from", what, was)
				}
			}
			for what, e := range map[string]mail.Event{
				"hard_bounce": told(mail.ID{}, mail.EventBounced, "ann@example.org", 1, mail.InvalidAddress),
				"complaint":   told(mail.ID{}, mail.EventComplained, "ann@example.org", 1),
			} {
				before("")
				f := b.fly(t, submission("other@example.org", "ann@example.org"))
				e.MessageID, e.UniqueID = f.id, what+f.id.String()
				b.receive(t, hook(f.account, e))
				check(what, "1 ann@example.org  "+what+" by webhook, for good")
			}
			before("transactional")
			f := b.fly(t, submission("other@example.org", "ann@example.org"))
			b.receive(t, hook(f.account, told(f.id, mail.EventUnsubscribed, "ann@example.org", 1)))
			check("unsubscribe", "1 ann@example.org transactional unsubscribe by webhook, for good")

			before("")
			refusal := b.fly(t, submission("other@example.org"))
			b.exec(t, `UPDATE recipient SET email = 'ann@example.org' WHERE message_id = $1`, [16]byte(refusal.id)) // past the check at acceptance
			r := queue.Result{ID: refusal.id, N: 1, Class: "bad_recipient", Recipients: changes("failed")}
			r.Recipients[0].Bounce = &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Text: "no such user"}
			b.record(t, refusal.owner, r)
			check("refusal", "1 ann@example.org  hard_bounce by response, for good")
		})
	}
}

// Two messages to one address that are refused at once suppress it once.
func TestTwoRefusalsOfOneAddressInOneBatch(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var batch []ownedResult
	for range 3 {
		f := b.fly(t, submission("ann@example.org"))
		r := queue.Result{ID: f.id, N: 1, Class: "bad_recipient", Recipients: changes("failed")}
		r.Recipients[0].Bounce = &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress}
		batch = append(batch, ownedResult{owner: f.owner, Result: r})
	}
	owned, errs := b.db.recordBatch(t.Context(), batch)
	if !slices.Equal(owned, []bool{true, true, true}) || errs[0] != nil || errs[1] != nil || errs[2] != nil {
		t.Errorf("recorded %v, %v", owned, errs)
	}
	if diff := cmp.Diff([]string{"1 ann@example.org  hard_bounce by response, for good"}, b.suppressions(t)); diff != "" {
		t.Errorf("suppressions (-want +got):\n%s", diff)
	}
}

// Soft bounces in a row suppress although an expired suppression of the address is still there, and longer than one that
// ends soon; what is for good stays.
func TestSoftBouncesSuppressBesideWhatIsThere(t *testing.T) {
	t.Parallel()
	for was, want := range map[string]string{
		"now() - interval '1 day'": "soft_bounce by webhook, for long", "now() + interval '1 day'": "soft_bounce by webhook, for long",
		"NULL": "manual by api, for good",
	} {
		t.Run(was, func(t *testing.T) {
			b := newBed(t)
			b.db = b.open(t, Options{AcceptWait: patient, SoftLimit: 2})
			f := b.fly(t, submission("ann@example.org"))
			b.exec(t, `INSERT INTO suppression (tenant_id, email, reason, origin, expires_at) VALUES (1, 'ann@example.org', 'manual', 'api', `+was+`)`)
			for n := range 2 {
				b.receive(t, hook(f.account, told(f.id, mail.EventBounced, "ann@example.org", n, mail.MailboxFull)))
			}
			if diff := cmp.Diff([]string{"1 ann@example.org  " + want}, b.suppressions(t)); diff != "" {
				t.Errorf("over one until %s (-want +got):\n%s", was, diff)
			}
		})
	}
}

// given stores a message of a tenant that an account was given, and returns its id.
func (b *bed) given(t *testing.T, account int32, tenant mail.TenantID, to ...string) mail.ID {
	t.Helper()
	s := submission(to...)
	s.Message.Tenant = tenant
	id := b.accept(t, s)[0]
	b.exec(t, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at) VALUES ($1, 1, $1, $2, '{}', now())`, [16]byte(id), account)
	return id
}

// Events of several tenants come in one batch: each counts for its own.
func TestEventsOfOneBatchCountForTheirOwnTenant(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db = b.open(t, Options{AcceptWait: patient, SoftLimit: 5})
	b.exec(t, `INSERT INTO tenant (id, name) VALUES (2, 'second')`)
	account := b.relay(t)
	both := []string{"ann@example.org", "bob@example.org"}
	first, second := b.given(t, account, 1, both...), b.given(t, account, 2, both...)
	var softs []mail.Event
	for i, id := range []mail.ID{first, second} {
		for j, email := range both {
			softs = append(softs, told(id, mail.EventBounced, email, 10*i+j, mail.MailboxFull))
		}
	}
	b.receive(t, hook(account, append(softs, told(first, mail.EventBounced, "ann@example.org", 30, mail.MailboxFull))...))
	counts := func() []string {
		return list[string](t, b, `SELECT tenant_id || ' ' || email || ' ' || n FROM soft_bounce ORDER BY tenant_id, email`)
	}
	want := []string{"1 ann@example.org 2", "1 bob@example.org 1", "2 ann@example.org 1", "2 bob@example.org 1"}
	if diff := cmp.Diff(want, counts()); diff != "" {
		t.Errorf("soft bounces (-want +got):\n%s", diff)
	}
	b.receive(t, hook(account, told(first, mail.EventDelivered, "ann@example.org", 40), told(second, mail.EventDelivered, "bob@example.org", 41)))
	if diff := cmp.Diff([]string{want[1], want[2]}, counts()); diff != "" {
		t.Errorf("after one delivery of each tenant (-want +got):\n%s", diff)
	}
	b.receive(t, hook(account, told(first, mail.EventComplained, "ann@example.org", 50), told(second, mail.EventComplained, "ann@example.org", 51),
		told(second, mail.EventUnsubscribed, "ann@example.org", 52)))
	wantRows := []string{
		"1 ann@example.org  complaint by webhook, for good", "2 ann@example.org  complaint by webhook, for good",
		"2 ann@example.org transactional unsubscribe by webhook, for good",
	}
	if diff := cmp.Diff(wantRows, b.suppressions(t)); diff != "" {
		t.Errorf("suppressions (-want +got):\n%s", diff)
	}
	for tenant, want := range map[mail.TenantID]string{1: "queued: suppressed queued", 2: "queued: suppressed queued", 3: "queued: queued queued"} {
		if tenant == 3 {
			b.exec(t, `INSERT INTO tenant (id, name) VALUES (3, 'third')`)
		}
		if got := b.status(t, b.given(t, account, tenant, both...)); got != want {
			t.Errorf("tenant %d: %s, want %s", tenant, got, want)
		}
	}
}

// Soft bounces count within softSpan of the first of them. Then the count begins anew.
func TestSoftBouncesCountWithinTheirSpan(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db = b.open(t, Options{AcceptWait: patient, SoftLimit: 5})
	f := b.fly(t, submission("ann@example.org"))
	for i, tc := range []struct{ first, count, suppressed string }{
		{"31 days", "1 since today, last today", ""},
		{"29 days", "5 since 29 days, last today", "1 ann@example.org  soft_bounce by webhook, for long"},
	} {
		b.exec(t, `DELETE FROM soft_bounce`)
		b.exec(t, `INSERT INTO soft_bounce (tenant_id, email, n, first_at, last_at)
			VALUES (1, 'ann@example.org', 4, now() - $1::text::interval, now() - interval '20 days')`, tc.first)
		b.receive(t, hook(f.account, told(f.id, mail.EventBounced, "ann@example.org", i, mail.MailboxFull)))
		got := get[string](t, b, `SELECT format('%s since %s, last %s', n, CASE WHEN first_at > now() - interval '1 hour' THEN 'today' ELSE extract(day FROM now() - first_at) || ' days' END,
			CASE WHEN last_at > now() - interval '1 hour' THEN 'today' ELSE 'before' END) FROM soft_bounce`)
		if got != tc.count {
			t.Errorf("the first %s ago: counted %s, want %s", tc.first, got, tc.count)
		}
		if got := strings.Join(b.suppressions(t), "\n"); got != tc.suppressed {
			t.Errorf("the first %s ago: suppressed %q, want %q", tc.first, got, tc.suppressed)
		}
	}
}

// What goes is what is over: a count by its last bounce, a suppression by its end.
func TestSweepTakesOnlyWhatIsOver(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, `INSERT INTO soft_bounce (tenant_id, email, n, first_at, last_at) VALUES
		(1, 'goes', 1, now() - interval '40 days', now() - interval '31 days'), (1, 'stays', 1, now() - interval '40 days', now() - interval '29 days');
INSERT INTO suppression (tenant_id, email, reason, origin, expires_at) VALUES
		(1, 'goes', 'manual', 'api', now() - interval '1 second'), (1, 'stays', 'manual', 'api', now() + interval '10 minutes'), (1, 'stays for good', 'manual', 'api', NULL);
INSERT INTO event_key (key, at) VALUES (gen_random_uuid(), now() - interval '8 days'), (gen_random_uuid(), now() - interval '6 days');
INSERT INTO hook_token (token, body, at) VALUES (gen_random_uuid(), '', now() - interval '3 days'), (gen_random_uuid(), '', now() - interval '1 day')`)
	if n, err := b.db.Sweep(t.Context()); n != 4 || err != nil {
		t.Errorf("swept %d, %v, want one of each", n, err)
	}
	got := list[string](t, b, `SELECT email FROM soft_bounce UNION ALL SELECT email FROM suppression
		UNION ALL SELECT 'key ' || at::date - current_date FROM event_key UNION ALL SELECT 'token ' || at::date - current_date FROM hook_token ORDER BY 1`)
	if diff := cmp.Diff([]string{"key -6", "stays", "stays", "stays for good", "token -1"}, got); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}
