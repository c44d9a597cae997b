package postgres

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// newBedIn is newBed with a database of a certain LC_CTYPE.
func newBedIn(t *testing.T, locale string) *bed {
	t.Helper()
	b := newBed(t)
	if get[string](t, b, `SELECT datctype FROM pg_database WHERE datname = current_database()`) == locale {
		return b
	}
	name := fmt.Sprintf("%s_%s", get[string](t, b, `SELECT current_database()`), strings.ToLower(strings.ReplaceAll(locale, ".", "")))
	quoted := pgx.Identifier{name}.Sanitize()
	if _, err := b.sql.Exec(t.Context(), `CREATE DATABASE `+quoted+` TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE '`+locale+`'`); err != nil {
		t.Skipf("this system has no locale %s: %v", locale, err)
	}
	cfg, err := pgx.ParseConfig(b.url)
	must(t, err)
	url := strings.Replace(b.url, cfg.Database, name, 1)
	t.Cleanup(func() { _, _ = b.sql.Exec(context.WithoutCancel(t.Context()), `DROP DATABASE `+quoted+` WITH (FORCE)`) })
	must(t, Migrate(t.Context(), url, &bytes.Buffer{}))
	other := &bed{url: url, db: b.open(t, Options{URL: url, AcceptWait: patient, SoftLimit: 2})}
	other.sql = other.db.api
	return other
}

// spelled are spellings of one address each. The first is as it is stored.
var spelled = [][]string{
	{"ann@example.org", "Ann@Example.ORG", "ANN@example.org"},
	{"änn@example.org", "ÄNN@example.org", "Änn@example.org"},
	{"σοφοσ@example.org", "ΣΟΦΟΣ@example.org", "σοφος@example.org"},
	{"bob@xn--mnchen-3ya.de", "Bob@XN--MNCHEN-3YA.de", "bob@münchen.de"},
}

// Whatever the locale makes of capitals, an address that complained is not mailed again.
func TestComplaintSuppressesEverySpellingInEveryLocale(t *testing.T) {
	t.Parallel()
	for _, locale := range []string{"C", "C.UTF-8"} {
		t.Run(locale, func(t *testing.T) {
			t.Parallel()
			b := newBedIn(t, locale)
			for _, s := range spelled {
				for _, as := range s {
					b.exec(t, `DELETE FROM suppression`)
					f := b.fly(t, submission(s[1]))
					b.receive(t, hook(f.account, told(f.id, mail.EventComplained, as, 1)))
					if got := b.status(t, f.id); got != "complained: complained" {
						t.Errorf("mailed %s, complaint of %s: %s", s[1], as, got)
					}
					for _, again := range s {
						if got := b.status(t, b.accept(t, submission(again))[0]); got != "suppressed: suppressed" {
							t.Errorf("%s complained, %s is %s", as, again, got)
						}
					}
				}
			}
		})
	}
}

func TestSuppressionIsOneForEverySpelling(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	find := func(email string) []string { return b.suppressed(t, record.Suppression{Email: email}) }
	for _, s := range spelled {
		for _, as := range s {
			must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: as, Reason: "manual", Origin: "api"}))
			for _, asked := range s {
				if diff := cmp.Diff([]string{s[0] + ` "" manual`}, find(asked)); diff != "" {
					t.Errorf("added %s, looked for %s (-want +got):\n%s", as, asked, diff)
				}
			}
		}
		must(t, b.db.Unsuppress(t.Context(), "tester", 1, s[1], true))
		if left := find(s[0]); left != nil {
			t.Errorf("lifted %s, left %s", s[1], left)
		}
		var list []record.Suppression
		for _, as := range s {
			list = append(list, record.Suppression{Email: as, Reason: "manual", Origin: "import"})
		}
		if n, err := b.db.ImportSuppressions(t.Context(), 1, list); n != 1 || err != nil {
			t.Errorf("import of %s added %d, %v, want 1", s, n, err)
		}
	}
}

// A suppression that came while a message waited binds its claim.
func TestClaimLeavesOutWhoWasSuppressedUnderAnotherSpelling(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, s := range spelled {
		id := b.accept(t, submission(s[1]))[0]
		must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: s[2], Reason: "manual", Origin: "api"}))
		loaded, err := b.db.Load(t.Context(), []mail.ID{id})
		must(t, err)
		if got := loaded[id].Recipients[0]; got.Status != mail.Suppressed || got.Address.Email != s[1] {
			t.Errorf("%s suppressed, %s is %s at its claim", s[2], got.Address.Email, got.Status)
		}
	}
}

// Soft bounces of one address count together, and its delivery clears them, however both spell it.
func TestSoftBouncesOfOneAddressCountTogether(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db = b.open(t, Options{AcceptWait: patient, SoftLimit: 3})
	for _, s := range spelled {
		for i, as := range s[:2] {
			f := b.fly(t, submission(as))
			b.receive(t, hook(f.account, told(f.id, mail.EventBounced, s[(i+1)%3], 1, mail.MailboxFull)))
		}
		if got := list[string](t, b, `SELECT email || n FROM soft_bounce`); !slices.Equal(got, []string{s[0] + "2"}) {
			t.Errorf("counts of %s: %s", s[0], got)
		}
		f := b.fly(t, submission(s[0]))
		b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, s[2], 1)))
		if got := list[string](t, b, `SELECT email FROM soft_bounce`); len(got) != 0 {
			t.Errorf("after a delivery: %s", got)
		}
	}
}

// searched lists what the searches for an address find, of those given.
func (b *bed) searched(t *testing.T, email string) (to, from []mail.ID, events []string) {
	t.Helper()
	ids := func(f record.Filter) (out []mail.ID) {
		f.Tenant, f.Limit = mail.DefaultTenant, 50
		views, err := b.db.Messages(t.Context(), f)
		must(t, err)
		for _, v := range views {
			out = append(out, v.Message.ID)
		}
		return out
	}
	list, err := b.db.Events(t.Context(), record.EventFilter{Tenant: mail.DefaultTenant, Recipient: email, Limit: 50})
	must(t, err)
	for _, e := range list {
		events = append(events, e.Recipient+" "+e.MessageID.String())
	}
	return ids(record.Filter{To: email}), ids(record.Filter{From: email}), events
}

func TestSearchFindsEverySpelling(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, s := range spelled {
		f := b.fly(t, with(func(x *record.Submission) { x.Message.From.Email, x.Message.To[0].Email = s[1], s[1] }))
		b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, s[2], 1)))
		want := s[0] + " " + f.id.String()
		for _, asked := range s {
			to, from, events := b.searched(t, asked)
			if !slices.Equal(to, []mail.ID{f.id}) || !slices.Equal(from, []mail.ID{f.id}) || !slices.Equal(events, []string{want}) {
				t.Errorf("mailed %s; a search for %s gives to=%v from=%v events=%v", s[1], asked, to, from, events)
			}
		}
	}
}

// An event may be about an address that its message was not sent to. The address that it shows finds it, and so does the
// stream of events.
func TestSearchFindsEventsAboutNoRecipient(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission("ann@example.org"))
	head, err := b.db.EventHead(t.Context())
	must(t, err)
	b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, "Other@Example.net", 1), told(f.id, mail.EventDelivered, "ann@example.org", 2)))
	want := []string{"other@example.net " + f.id.String()}
	if _, _, events := b.searched(t, "OTHER@example.net"); !slices.Equal(events, want) {
		t.Errorf("events = %v, want %v", events, want)
	}
	until(t, "the event in the stream", func() bool {
		got, _, err := b.db.EventsAfter(t.Context(), record.EventFilter{Tenant: mail.DefaultTenant, Recipient: "OTHER@example.NET"}, head, 10)
		must(t, err)
		return len(got) == 1 && got[0].Recipient == "other@example.net"
	})
}

// A report that found its message late shows the one form of its recipient's address, too. A small sigma at the end of a
// word is in lower case, and not folded.
func TestALateReportIsFoundByTheFoldedAddress(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission("Γιώργος@example.org"))
	b.record(t, f.owner, sent(f.due))
	b.exec(t, `UPDATE attempt SET provider_message_id = ''`)
	e := told(mail.ID{}, mail.EventBounced, "", 3, mail.InvalidAddress)
	e.ByMessage = true
	b.receive(t, hook(f.account, e))
	b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-1'; UPDATE orphan SET retry_at = now()`)
	if n, err := b.db.MatchOrphans(t.Context(), 10); n != 1 || err != nil {
		t.Fatalf("matched %d, %v", n, err)
	}
	got := list[string](t, b, `SELECT recipient FROM event WHERE source = 'webhook'`)
	if want := []string{mail.FoldAddress("Γιώργος@example.org")}; !slices.Equal(got, want) {
		t.Errorf("recipient = %v, want %v", got, want)
	}
}

// Messages that travelled in one call may have one id of the provider's. An event without our id is about the one that has its
// recipient; if none has, it is about nobody.
func TestMessagesOfOneCallShareTheProvidersID(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ann, bob := b.fly(t, submission("ann@example.org")), b.fly(t, submission("bob@example.org"))
	for _, f := range []flight{ann, bob} {
		b.record(t, f.owner, sent(f.due))
	}
	b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-1', account_id = $1`, ann.account)
	b.receive(t, hook(ann.account, told(mail.ID{}, mail.EventDelivered, "BOB@example.org", 1), told(mail.ID{}, mail.EventDelivered, "carl@example.org", 2)))
	if a, c := b.status(t, ann.id), b.status(t, bob.id); a != "sent: sent" || c != "delivered: delivered" {
		t.Errorf("ann's message is %s, bob's is %s; want only bob's delivered", a, c)
	}
	if n := get[int](t, b, `SELECT count(*) FROM orphan`); n != 1 {
		t.Errorf("events that found no message = %d, want carl's", n)
	}
}

// A search reads by index, in a database with many messages, none of which it looks for.
func TestSearchByAddressReadsByIndex(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	must(t, dropDays(t.Context(), b.sql))
	b.fill(t, 8_000)
	b.exec(t, `UPDATE recipient SET email = (CASE n WHEN 0 THEN 'Ann' ELSE '' END) || right(message_id::text, 6) || '@example.org';
UPDATE message SET sender = 'Shop' || right(id::text, 3) || '@example.com';
INSERT INTO event (id, origin, tenant_id, message_id, n, type, recipient, at, source, key)
	SELECT new_event_id(), message_id, 1, message_id, CASE WHEN right(message_id::text, 1) <> '0' THEN 0 END, 'delivered', lower(email), now(), 'webhook', message_id FROM recipient`)
	b.exec(t, `VACUUM ANALYZE`)
	r := b.watch(t, &b.db.api)
	b.searched(t, "Ann000010@example.org")
	to, from, events := b.searched(t, "ann000011@Example.org")
	if len(to) != 1 || len(from) != 0 || len(events) != 1 {
		t.Errorf("to = %v, from = %v, events = %v", to, from, events)
	}
	if _, from, _ := b.searched(t, "SHOP00f@example.com"); len(from) < 1 {
		t.Errorf("from = %v, want the one or two of that sender", from)
	}
	today := time.Now().UTC().Format("20060102")
	for index, part := range map[string]string{
		"recipient_" + today + "_tenant_id_coalesce_message_id_idx": "WHERE m.tenant_id = $1 AND m.id IN",
		"message_" + today + "_tenant_id_coalesce_id_idx":           "AND " + senderSQL,
		"event_" + today + "_tenant_id_recipient_id_idx":            "FROM event y",
	} {
		i := slices.IndexFunc(r.seen, func(s statement) bool { return strings.Contains(s.sql, part) })
		if i < 0 {
			t.Fatalf("no statement holds %q", part)
		}
		plan := strings.Join(list[string](t, b, "EXPLAIN (COSTS OFF) "+r.seen[i].sql, r.seen[i].args...), "\n")
		if !strings.Contains(plan, index+" on ") || regexp.MustCompile(`Seq Scan on (message|recipient|event)_`+today).MatchString(plan) {
			t.Errorf("want an index scan by %s and no table read as a whole:\n%s", index, plan)
		}
	}
}
