package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// Every recipient of a message reads the bounce address that all of them share, and can write a report to it that names
// another one. Such a report is told and shows on the message, and it suppresses nobody, counts for nobody and clears nobody's
// count, however it comes.
func TestAReportToASharedBounceAddressSuppressesNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db.softLimit = 2
	ways := map[string]func(t *testing.T, f flight, e mail.Event){
		"at once": func(t *testing.T, f flight, e mail.Event) { b.receive(t, hook(f.account, e)) },
		"by a look-up": func(t *testing.T, f flight, e mail.Event) {
			in := hook(f.account, e)
			in.Source = mail.FromLookup
			b.receive(t, in)
		},
		"before its message": func(t *testing.T, f flight, e mail.Event) {
			b.exec(t, `UPDATE attempt SET provider_message_id = '' WHERE message_id = $1`, [16]byte(f.id))
			e.MessageID = mail.ID{}
			b.receive(t, hook(f.account, e))
			b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-1' WHERE message_id = $1; `, [16]byte(f.id))
			b.exec(t, `UPDATE orphan SET retry_at = now()`)
			if n, err := b.db.MatchOrphans(t.Context(), 100); n != 1 || err != nil {
				t.Fatalf("matched %d, %v", n, err)
			}
		},
		"read again": func(t *testing.T, f flight, e mail.Event) {
			b.receive(t, hook(f.account, told(f.id, mail.EventUnmapped, "ann@example.org", 0)))
			origin := get[[16]byte](t, b, `SELECT id FROM event WHERE source = 'webhook'`)
			_, _, err := b.db.Reproject(t.Context(), []record.Reprojected{{Origin: origin, Events: []mail.Event{e}}}, false)
			must(t, err)
		},
	}
	shows := map[string]string{
		"hard bounce": "bounced", "soft bounce": "bounced", "rejection": "failed", "complaint": "complained", "unsubscribe": "sent", "delivery": "delivered",
	}
	for way, come := range ways {
		for claim, event := range claims() {
			for _, victim := range []string{"victim@example.org", "VICTIM@Example.ORG"} {
				t.Run(way+"/"+claim+"/"+victim, func(t *testing.T) {
					b.exec(t, `DELETE FROM event; DELETE FROM event_key; DELETE FROM suppression; DELETE FROM soft_bounce; DELETE FROM orphan;
						UPDATE attempt SET provider_message_id = ''`)
					b.exec(t, `INSERT INTO soft_bounce (tenant_id, email, n) VALUES (1, 'victim@example.org', 1)`)
					f := b.fly(t, submission("mallory@example.org", "victim@example.org"))
					r := sent(f.due)
					r.ProviderMessageID, r.Announce, r.Recipients = "pm-1", false, changes("sent", "sent")
					b.record(t, f.owner, r)
					e := event(f.id, 3)
					e.Recipient, e.ByMessage = victim, true
					come(t, f, e)
					if diff := cmp.Diff([]string{"soft victim@example.org 1"}, b.keptOf(t)); diff != "" {
						t.Errorf("a recipient suffers from what another one can write (-want +got):\n%s", diff)
					}
					if got := list[string](t, b, `SELECT status FROM recipient WHERE message_id = $1 ORDER BY n`, [16]byte(f.id)); got[0] != "sent" || got[1] != shows[claim] {
						t.Errorf("recipients are %v, want sent and %s", got, shows[claim])
					}
				})
			}
		}
	}
}

// Of a message with one recipient nobody else reads the address: its reports bind, as do those of a provider that signs.
func TestAReportBindsWhereNobodyElseCouldWriteIt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for name, tc := range map[string]struct {
		to        []string
		byMessage bool
	}{
		"one recipient":                    {[]string{"ann@example.org"}, true},
		"several, of whom a provider told": {[]string{"ann@example.org", "bob@example.org"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b.exec(t, `DELETE FROM suppression`)
			f := b.fly(t, submission(tc.to...))
			b.record(t, f.owner, sent(f.due))
			e := told(f.id, mail.EventBounced, "ann@example.org", 3, mail.InvalidAddress)
			e.ByMessage = tc.byMessage
			b.receive(t, hook(f.account, e))
			if diff := cmp.Diff([]string{`ann@example.org "" hard_bounce`}, b.suppressed(t, record.Suppression{})); diff != "" {
				t.Errorf("suppressed (-want +got):\n%s", diff)
			}
		})
	}
}

// One recipient has the mail while another still waits for it, or will never get it. Whoever has it can't keep the mail from
// the other by a report, nor make up what became of it.
func TestAReportToASharedBounceAddressChangesNobodyWhoWasNotMailed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, status := range []mail.Status{mail.Queued, mail.Failed, mail.Suppressed, mail.Cancelled, mail.Expired} {
		for claim, event := range claims() {
			t.Run(fmt.Sprint(status, "/", claim), func(t *testing.T) {
				b.exec(t, `DELETE FROM event; DELETE FROM event_key; DELETE FROM suppression`)
				f := b.fly(t, submission("mallory@example.org", "victim@example.org"))
				r := sent(f.due)
				r.Announce, r.Recipients = false, changes("sent", status)
				if status == mail.Queued {
					r.Settle, r.Requeue = nil, &queue.Requeue{In: time.Hour}
				}
				b.record(t, f.owner, r)
				before := b.outcome(t, f.id)
				e := event(f.id, 3)
				e.Recipient, e.ByMessage = "victim@example.org", true
				b.receive(t, hook(f.account, e))
				after := b.outcome(t, f.id)
				if before.place != after.place || before.status != after.status {
					t.Errorf("was %+v, is %+v", before, after)
				}
			})
		}
	}
}
