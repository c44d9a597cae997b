package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

const stranger = "ceo@victim.example"

// claims are what an event may say of somebody whom its message was never for.
func claims() map[string]func(id mail.ID, sec int) mail.Event {
	of := func(what mail.EventType, reason ...mail.Reason) func(mail.ID, int) mail.Event {
		return func(id mail.ID, sec int) mail.Event { return told(id, what, "CEO@victim.example", sec, reason...) }
	}
	return map[string]func(mail.ID, int) mail.Event{
		"hard bounce": of(mail.EventBounced, mail.InvalidAddress),
		"soft bounce": of(mail.EventBounced, mail.MailboxFull),
		"rejection":   of(mail.EventRejected, mail.InvalidAddress),
		"complaint":   of(mail.EventComplained),
		"unsubscribe": of(mail.EventUnsubscribed),
		"delivery":    of(mail.EventDelivered),
	}
}

// keptOf lists what is kept by address, and what endpoints are to be told.
func (b *bed) keptOf(t *testing.T) []string {
	t.Helper()
	return list[string](t, b, `SELECT 'suppressed ' || email FROM suppression UNION ALL SELECT 'soft ' || email || ' ' || n FROM soft_bounce
		UNION ALL SELECT 'told of ' || e.recipient || ' ' || e.type FROM outbox o JOIN event e ON e.id = o.event_id ORDER BY 1`)
}

// Whatever the source and the way, an event acts only for recipients of its own message: a stranger that it names is not
// suppressed, not counted and not cleared, nobody is told, and the message stays as it was.
func TestAnEventOfAStrangerIsKeptWithoutEffect(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db.softLimit = 2
	_, err := b.db.CreateEndpoint(t.Context(), "tester", record.Endpoint{Tenant: mail.DefaultTenant, URL: "https://hooks.example.com/"}, seal.NewSecret("whsec_x"), seal.Secret{})
	must(t, err)
	adopt := func(t *testing.T) {
		t.Helper()
		b.exec(t, `UPDATE orphan SET retry_at = now()`)
		if _, err := b.db.MatchOrphans(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
	}
	ways := map[string]func(t *testing.T, f flight, e mail.Event){
		"by our id": func(t *testing.T, f flight, e mail.Event) { b.receive(t, hook(f.account, e)) },
		"by their id": func(t *testing.T, f flight, e mail.Event) {
			e.MessageID = mail.ID{}
			b.receive(t, hook(f.account, e))
		},
		"by the bounce address": func(t *testing.T, f flight, e mail.Event) {
			e.ByMessage = true
			b.receive(t, hook(f.account, e))
		},
		"by a look-up": func(t *testing.T, f flight, e mail.Event) {
			in := hook(f.account, e)
			in.Source = mail.FromLookup
			b.receive(t, in)
		},
		"before its message": func(t *testing.T, f flight, e mail.Event) {
			b.exec(t, `UPDATE attempt SET provider_message_id = '' WHERE message_id = $1`, [16]byte(f.id))
			e.MessageID = mail.ID{}
			b.receive(t, hook(f.account, e))
			b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-1' WHERE message_id = $1`, [16]byte(f.id))
			adopt(t)
		},
		"read again": func(t *testing.T, f flight, e mail.Event) {
			first := told(f.id, mail.EventUnmapped, "ann@example.org", 0)
			b.receive(t, hook(f.account, first))
			origin := get[[16]byte](t, b, `SELECT id FROM event WHERE source = 'webhook'`)
			_, _, err := b.db.Reproject(t.Context(), []record.Reprojected{{Origin: origin, Events: []mail.Event{e}}}, false)
			must(t, err)
		},
	}
	for way, come := range ways {
		for claim, event := range claims() {
			t.Run(way+"/"+claim, func(t *testing.T) {
				b.exec(t, `DELETE FROM event; DELETE FROM event_key; DELETE FROM suppression; DELETE FROM soft_bounce; DELETE FROM outbox; DELETE FROM orphan;
					UPDATE attempt SET provider_message_id = ''`)
				b.exec(t, `INSERT INTO soft_bounce (tenant_id, email, n) VALUES (1, $1, 1)`, stranger)
				f := b.fly(t, submission("ann@example.org", "bob@example.org"))
				r := sent(f.due)
				r.ProviderMessageID, r.Announce = "pm-1", false
				r.Recipients = changes("sent", "sent")
				b.record(t, f.owner, r)
				before := b.keptOf(t)
				come(t, f, event(f.id, 3))
				if diff := cmp.Diff(before, b.keptOf(t)); diff != "" {
					t.Errorf("a stranger is concerned (-before +after):\n%s", diff)
				}
				if got := b.status(t, f.id); got != "sent: sent sent" {
					t.Errorf("status = %s", got)
				}
				got := list[string](t, b, `SELECT recipient || ' ' || type || ' ' || coalesce(n, -1) FROM event WHERE source <> 'response' AND message_id = $1`, [16]byte(f.id))
				if diff := cmp.Diff([]string{stranger + "  -1"}, got); diff != "" {
					t.Errorf("kept (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// An event of no message of ours acts for nobody, even if an account of ours is told and signs for it.
func TestAnEventOfNoMessageIsKeptWithoutEffect(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db.softLimit = 1
	account := b.account(t, "relay")
	for claim, event := range claims() {
		e := event(mail.NewID(), 3)
		e.ByMessage = true
		bare := event(mail.ID{}, 4)
		bare.ProviderMessageID = ""
		theirs := event(mail.ID{}, 5)
		theirs.ProviderMessageID = "of mail that somebody else sent"
		b.receive(t, hook(account, e, bare, theirs))
		b.exec(t, `UPDATE orphan SET retry_at = now()`)
		if n, err := b.db.MatchOrphans(t.Context(), 100); n != 0 || err != nil {
			t.Errorf("%s: matched %d, %v", claim, n, err)
		}
		if kept := b.keptOf(t); len(kept) > 0 {
			t.Errorf("%s: %q", claim, kept)
		}
	}
}

// The provider's id finds messages of the account that got it only.
func TestAnothersProviderIDIsNoProof(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	r := sent(f.due)
	r.ProviderMessageID = "pm-1"
	b.record(t, f.owner, r)
	other := b.account(t, "other")
	taken := b.receive(t, hook(other, told(mail.ID{}, mail.EventComplained, "ann@example.org", 3)))
	if diff := cmp.Diff(record.Taken{Orphans: 1}, taken); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	if kept := b.keptOf(t); len(kept) > 0 || b.status(t, f.id) != "sent: sent" {
		t.Errorf("%q, status %s", kept, b.status(t, f.id))
	}
}

// A delivery clears the soft bounces of its own tenant's recipient, and no other's.
func TestADeliveryClearsItsOwnTenantsCountOnly(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db.softLimit = 5
	b.exec(t, `INSERT INTO tenant (id, name) VALUES (7, 'other')`)
	mine := b.fly(t, submission())
	b.record(t, mine.owner, sent(mine.due))
	theirs := b.fly(t, submission("bob@example.org"))
	b.record(t, theirs.owner, sent(theirs.due))
	b.exec(t, `UPDATE message SET tenant_id = 7 WHERE id = $1`, [16]byte(theirs.id))
	b.exec(t, `INSERT INTO soft_bounce (tenant_id, email, n) SELECT t, e, 4 FROM unnest('{1,7}'::int[]) t, unnest('{ann@example.org,bob@example.org}'::text[]) e`)
	b.receive(t, hook(mine.account, told(mine.id, mail.EventDelivered, "ann@example.org", 1), told(theirs.id, mail.EventDelivered, "bob@example.org", 1)))
	want := []string{"1 bob@example.org", "7 ann@example.org"}
	if diff := cmp.Diff(want, list[string](t, b, `SELECT tenant_id || ' ' || email FROM soft_bounce ORDER BY 1`)); diff != "" {
		t.Errorf("counts left (-want +got):\n%s", diff)
	}
}

// A report that is known by its message is about the one recipient of that message, whoever it names or if it names nobody.
// With two recipients it is about the one that it names, and suppresses nobody, since the other one may have written it.
func TestAReportOfAMessageWithOneRecipientIsAboutThatOne(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for name, tc := range map[string]struct {
		recipient string
		byMessage bool
		one       string // status of a message to ann alone
	}{
		"names nobody":                 {"", true, "bounced: bounced"},
		"names nobody, from any other": {"", false, "bounced: bounced"},
		"names a stranger":             {"target@forward.example", true, "bounced: bounced"},
		"names her":                    {"ANN@example.org", true, "bounced: bounced"},
		"a signed event of a stranger": {"target@forward.example", false, "sent: sent"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, to := range [][]string{{"ann@example.org"}, {"ann@example.org", "bob@example.org"}} {
				b.exec(t, `DELETE FROM suppression`)
				f := b.fly(t, submission(to...))
				r := sent(f.due)
				r.Recipients = changes(mail.Sent, mail.Sent)[:len(to)]
				b.record(t, f.owner, r)
				e := told(f.id, mail.EventBounced, tc.recipient, 3, mail.InvalidAddress)
				e.ByMessage = tc.byMessage
				b.receive(t, hook(f.account, e))
				want, suppressed := tc.one, "[ann@example.org]"
				if len(to) == 2 && !strings.EqualFold(tc.recipient, to[0]) {
					want = "sent: sent sent"
				} else if len(to) == 2 {
					want = "bounced: bounced sent"
				}
				if want != tc.one || tc.one == "sent: sent" {
					suppressed = "[]"
				}
				got := fmt.Sprint(list[string](t, b, `SELECT email FROM suppression`))
				if b.status(t, f.id) != want || got != suppressed {
					t.Errorf("%d recipients: status %s, suppressed %s; want %s, %s", len(to), b.status(t, f.id), got, want, suppressed)
				}
				if len(to) == 1 && suppressed != "[]" {
					v, err := b.db.Message(t.Context(), mail.DefaultTenant, f.id)
					must(t, err)
					if last := v.Events[len(v.Events)-1]; last.Recipient != "ann@example.org" {
						t.Errorf("the event shows %q", last.Recipient)
					}
				}
			}
		})
	}
}

// A report that names two strangers is about mail that was forwarded to both: it counts as the milder of the two, and once.
func TestAReportOfTwoStrangersCountsAsTheMilder(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for name, tc := range map[string]struct {
		second func(mail.ID) mail.Event
		want   string
	}{
		"reached one": {func(id mail.ID) mail.Event { return told(id, mail.EventDelivered, "two@forward.example", 1) }, "delivered: delivered []"},
		"one is full": {func(id mail.ID) mail.Event {
			return told(id, mail.EventBounced, "two@forward.example", 1, mail.MailboxFull)
		}, "bounced: bounced []"},
		"both are gone": {func(id mail.ID) mail.Event {
			return told(id, mail.EventBounced, "two@forward.example", 1, mail.Inactive)
		}, "bounced: bounced [ann@example.org]"},
	} {
		for _, order := range []int{0, 1} {
			b.exec(t, `DELETE FROM suppression; DELETE FROM soft_bounce`)
			f := b.fly(t, submission())
			b.record(t, f.owner, sent(f.due))
			events := []mail.Event{told(f.id, mail.EventBounced, "one@forward.example", 2, mail.InvalidAddress), tc.second(f.id)}
			events[0].ByMessage, events[1].ByMessage = true, true
			if order == 1 {
				events[0], events[1] = events[1], events[0]
			}
			b.receive(t, record.Intake{Account: f.account, Source: mail.FromWebhook, Payloads: []mail.Payload{{Raw: []byte("raw"), Events: events}}})
			got := b.status(t, f.id) + " " + fmt.Sprint(list[string](t, b, `SELECT email FROM suppression`))
			if n := get[int](t, b, `SELECT coalesce(sum(n), 0) FROM soft_bounce`); got != tc.want || n > 1 {
				t.Errorf("%s, order %d: %s, %d soft bounces; want %s", name, order, got, n, tc.want)
			}
		}
	}
}

// A report that came before its message is still about its one recipient, and stays so when it is read again.
func TestAReportFindsItsOneRecipientLater(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	b.record(t, f.owner, sent(f.due))
	b.exec(t, `UPDATE attempt SET provider_message_id = ''`)
	e := told(mail.ID{}, mail.EventBounced, "target@forward.example", 3, mail.InvalidAddress)
	e.ByMessage = true
	b.receive(t, hook(f.account, e))
	b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-1'; UPDATE orphan SET retry_at = now()`)
	if n, err := b.db.MatchOrphans(t.Context(), 100); n != 1 || err != nil {
		t.Fatalf("matched %d, %v", n, err)
	}
	want := []string{"suppressed ann@example.org"}
	if diff := cmp.Diff(want, b.keptOf(t)); diff != "" || b.status(t, f.id) != "bounced: bounced" {
		t.Errorf("status %s (-want +got):\n%s", b.status(t, f.id), diff)
	}
	origin := get[[16]byte](t, b, `SELECT id FROM event WHERE source = 'webhook'`)
	e.MessageID = f.id
	changed, _, err := b.db.Reproject(t.Context(), []record.Reprojected{{Origin: origin, Events: []mail.Event{e}}}, false)
	if changed != 0 || err != nil || b.status(t, f.id) != "bounced: bounced" {
		t.Errorf("read again: %d changed, %v, status %s", changed, err, b.status(t, f.id))
	}
}

// An event that an earlier version kept without its message, since it had no id of ours, is matched when it is read again.
func TestReadingAgainFindsTheMessageByTheProvidersID(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	b.record(t, f.owner, sent(f.due))
	b.exec(t, `UPDATE attempt SET provider_message_id = ''`)
	e := told(mail.ID{}, mail.EventDelivered, "ann@example.org", 3)
	b.receive(t, hook(f.account, e))
	b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-1'; DELETE FROM orphan`)
	origin := get[[16]byte](t, b, `SELECT id FROM event WHERE source = 'webhook'`)
	changed, messages, err := b.db.Reproject(t.Context(), []record.Reprojected{{Origin: origin, Events: []mail.Event{e}}}, false)
	if changed != 1 || messages != 1 || err != nil {
		t.Errorf("changed %d of %d messages, %v", changed, messages, err)
	}
	if got := b.status(t, f.id); got != "delivered: delivered" {
		t.Errorf("status = %s", got)
	}
	v, err := b.db.Message(t.Context(), mail.DefaultTenant, f.id)
	must(t, err)
	if len(v.Events) != 1 {
		t.Errorf("the message shows %+v", v.Events)
	}
}
