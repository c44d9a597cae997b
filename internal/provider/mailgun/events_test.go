package mailgun_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/eventjson"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

// sample is an event as Mailgun's documentation shows it ("Event Structure", "Webhook Payloads"), about message plain.
func sample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "events", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// parser is a client that makes no calls.
func parser(t testing.TB) *mailgun.Client {
	t.Helper()
	c, err := mailgun.New(mailgun.Config{APIKey: seal.NewSecret(testKey), Domain: testDomain, SigningKey: seal.NewSecret(signingKey)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plainID() mail.ID { return providertest.Plain().ID }

// event is what all samples have in common, changed.
func event(kind mail.EventType, name string, change ...func(*mail.Event)) mail.Event {
	e := mail.Event{
		Type: kind, Name: name, UniqueID: "2018-03-19/CPgfbmQMTCKtHW6uIWtuVe", MessageID: plainID(),
		ProviderMessageID: providertest.Plain().MessageID(), Recipient: "ann@example.org",
		At: time.Date(2018, 3, 19, 15, 11, 2, 908_000_000, time.UTC),
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func because(b mail.Bounce) func(*mail.Event) { return func(e *mail.Event) { e.Bounce = &b } }

func TestParseDocumentedEvents(t *testing.T) {
	t.Parallel()
	rejected := because(mail.Bounce{Reason: mail.OtherReason, Rule: "mailgun/rejected", Text: "Sandbox subdomains are for test purposes only."})
	for name, want := range map[string][]mail.Event{
		"accepted":  {event(mail.EventAccepted, "accepted")},
		"delivered": {event(mail.EventDelivered, "delivered")},
		"failed_permanent": {event(mail.EventBounced, "failed/permanent/bounce", because(mail.Bounce{
			Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1",
			Text: "5.1.1 The email account that you tried to reach does not exist", Rule: "reply/mailbox_unknown",
		}))},
		"failed_temporary": {event(mail.EventDeferred, "failed/temporary/generic", because(mail.Bounce{
			Class: mail.Soft, Reason: mail.MailboxFull, Code: "452", Enhanced: "4.2.2",
			Text: "4.2.2 The email account that you tried to reach is over quota", Rule: "reply/mailbox_full",
		}))},
		"failed_suppressed": {event(mail.EventRejected, "failed/permanent/suppress-bounce", because(mail.Bounce{
			Reason: mail.SuppressedBounce, Code: "605", Text: "Not delivering to previously bounced address", Rule: "mailgun/605",
		}))},
		"failed_delayed": {event(mail.EventBounced, "failed/permanent/bounce", because(mail.Bounce{
			Class: mail.Soft, Reason: mail.Undetermined, Code: "550", Rule: "reply/none",
		}))},
		"opened":       {event(mail.EventOpened, "opened", func(e *mail.Event) { e.Machine = true })},
		"clicked":      {event(mail.EventClicked, "clicked", func(e *mail.Event) { e.URL = "https://shop.example.com/order?id=42&x=%20y" })},
		"unsubscribed": {event(mail.EventUnsubscribed, "unsubscribed")},
		"complained":   {event(mail.EventComplained, "complained")},
		"rejected": {
			event(mail.EventRejected, "rejected", rejected),
			event(mail.EventRejected, "rejected", rejected, func(e *mail.Event) { e.Recipient = "CAROL@example.org" }),
		},
		"stored": {event(mail.EventUnmapped, "stored", func(e *mail.Event) { e.Recipient = "" })},
	} {
		if diff := cmp.Diff(want, parser(t).Parse([]byte(sample(t, name)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWhyItFailed(t *testing.T) {
	t.Parallel()
	const perm, temp = "permanent", "temporary"
	for _, c := range []struct {
		severity, reason, status string
		want                     mail.EventType
		because                  mail.Reason
	}{
		{perm, "bounce", `"code":550,"message":"no"`, mail.EventBounced, mail.Undetermined},
		{perm, "bounce", `"code":550,"message":"Bad SPF records for this sender"`, mail.EventBounced, mail.AuthFailure},
		{perm, "hardfail", `"code":550,"message":"Denied by policy"`, mail.EventBounced, mail.BlockedPolicy},
		{perm, "bounce", `"code":550,"message":"No such user here"`, mail.EventBounced, mail.InvalidAddress},
		{perm, "bounce", `"code":552,"message":"5.2.2 mailbox full"`, mail.EventBounced, mail.MailboxFull},
		{perm, "bounce", `"code":550,"enhanced-code":"5.7.1","message":"message blocked as spam"`, mail.EventBounced, mail.BlockedPolicy},
		{perm, "bounce", `"code":450,"message":"come back"`, mail.EventBounced, mail.Undetermined},
		{perm, "bounce", ``, mail.EventBounced, mail.InvalidAddress},
		{perm, "hardfail", `"code":0,"message":""`, mail.EventBounced, mail.InvalidAddress},
		{perm, "generic", `"code":550,"enhanced-code":"5.1.1","message":"user unknown"`, mail.EventBounced, mail.InvalidAddress},
		{perm, "generic", `"code":680,"message":"connection failed"`, mail.EventBounced, mail.Connection},
		{perm, "generic", `"code":602,"message":"552 rejected"`, mail.EventBounced, mail.MailboxFull}, // the words' own code
		{perm, "brand-new", `"code":554,"enhanced-code":"5.2.2"`, mail.EventBounced, mail.MailboxFull},
		{perm, "old", `"code":602,"message":"Too old"`, mail.EventBounced, mail.TimedOut},
		{perm, "espblock", `"code":550,"message":"user unknown"`, mail.EventBounced, mail.BlockedPolicy},
		{perm, "blacklisted", `"code":550`, mail.EventBounced, mail.Reputation},
		{perm, "greylisted", `"code":451`, mail.EventBounced, mail.ThrottledThere},
		{perm, "suppress-bounce", `"code":605`, mail.EventRejected, mail.SuppressedBounce},
		{perm, "suppress-complaint", `"code":607`, mail.EventRejected, mail.SuppressedComplaint},
		{perm, "suppress-unsubscribe", `"code":606`, mail.EventRejected, mail.SuppressedUnsubscribe},
		{perm, "suppress-unsubscribe", ``, mail.EventRejected, mail.SuppressedUnsubscribe},
		{perm, "suppress-complaint", ``, mail.EventRejected, mail.SuppressedComplaint},
		{perm, "suppress-bounce", ``, mail.EventRejected, mail.SuppressedBounce},
		{perm, "generic", `"code":605`, mail.EventRejected, mail.SuppressedBounce},
		{perm, "generic", `"code":"606"`, mail.EventRejected, mail.SuppressedUnsubscribe},
		{perm, "generic", `"code":607`, mail.EventRejected, mail.SuppressedComplaint},
		{perm, "generic", `"code":498,"message":"No MX for example.org"`, mail.EventBounced, mail.InvalidDomain},
		{perm, "old", `"code":498,"message":"","description":"no mx for example.org"`, mail.EventBounced, mail.InvalidDomain},
		{perm, "generic", `"code":498,"message":"refused"`, mail.EventBounced, mail.Connection},
		{perm, "generic", `"code":499,"message":"timed out"`, mail.EventBounced, mail.TimedOut},
		{temp, "generic", `"code":498,"message":"No MX for example.org"`, mail.EventDeferred, mail.Connection},
		{temp, "generic", `"code":499`, mail.EventDeferred, mail.TimedOut},
		{temp, "greylisted", `"code":451`, mail.EventDeferred, mail.ThrottledThere},
		{temp, "espblock", `"code":421`, mail.EventDeferred, mail.BlockedPolicy},
		{temp, "bounce", `"code":550,"enhanced-code":"5.1.1","message":"user unknown"`, mail.EventDeferred, mail.Undetermined},
		{temp, "", ``, mail.EventDeferred, mail.Undetermined},
	} {
		raw := fmt.Sprintf(`{"event":"failed","id":"a","timestamp":1521472262.9,"severity":%q,"reason":%q,"recipient":"ann@example.org","delivery-status":{%s}}`,
			c.severity, c.reason, c.status)
		e := parser(t).Parse([]byte(raw))[0]
		if e.Bounce != nil && e.Bounce.Code == "0" {
			t.Errorf("%s: code %q", raw, e.Bounce.Code)
		}
		if e.Bounce == nil || e.Type != c.want || e.Bounce.Reason != c.because || e.Bounce.Class != c.because.Class() {
			t.Errorf("%s = %s because %+v, want %s because %s", raw, e.Type, e.Bounce, c.want, c.because)
		}
	}
}

// TestParseOddEvents has events in which documentation and real captures differ, and odd fields that must not lose the event.
func TestParseOddEvents(t *testing.T) {
	t.Parallel()
	const head = `{"event":"delivered","id":"a","timestamp":1521472262.908181,"recipient":"ann@example.org"`
	id := plainID()
	base := mail.Event{
		Type: mail.EventDelivered, Name: "delivered", UniqueID: "2018-03-19/a", Recipient: "ann@example.org",
		At: time.Date(2018, 3, 19, 15, 11, 2, 908_000_000, time.UTC),
	}
	with := func(change func(*mail.Event)) mail.Event {
		e := base
		change(&e)
		return e
	}
	ours := with(func(e *mail.Event) { e.MessageID = id })
	for raw, want := range map[string]mail.Event{
		head + `}`: base,
		head + `,"user-variables":{"gw_msg":"` + id.String() + `","n":1,"x":{"y":[true]},"z":null}}`: ours,
		head + `,"user-variables":"{\"gw_msg\":\"` + id.String() + `\",\"n\":1}"}`:                   ours,
		head + `,"user-variables":{"GW_MSG":"` + id.String() + `","Gw_Msg":"` + id.String() + `"}}`:  base, // a caller's own
		head + `,"user-variables":{"gw_msg":42}}`:                                                    base,
		head + `,"user-variables":"not JSON"}`:                                                       base,
		head + `,"user-variables":[]}`:                                                               base,
		head + `,"user-variables":null}`:                                                             base,
		head + `,"message":{"headers":{"message-id":"<` + id.String() + `@example.com>"}}}`: with(func(e *mail.Event) {
			e.MessageID, e.ProviderMessageID = id, id.String()+"@example.com"
		}),
		head + `,"message":{"headers":{"message-id":"20180319.1.AB@mg.example.com"}}}`: with(func(e *mail.Event) {
			e.ProviderMessageID = "20180319.1.AB@mg.example.com"
		}),
		head + `,"message":[],"envelope":"x","delivery-status":7,"client-info":null,"flags":[]}`: base,
		head + `,"timestamp":"1521472262.908"}`:                                                  base,
		head + `,"timestamp":1.521472262908E9}`:                                                  base,
		head + `,"timestamp":1521472262}`:                                                        with(func(e *mail.Event) { e.At = e.At.Truncate(time.Second) }),
		head + `,"recipient":"Ann <ann@EXAMPLE.org>"}`:                                           base,
		head + `,"recipient":"not an address"}`:                                                  with(func(e *mail.Event) { e.Type, e.Recipient = "", "" }),
		head + `,"recipient":null}`:                                                              with(func(e *mail.Event) { e.Type, e.Recipient = "", "" }),
		head + `,"timestamp":null}`:                                                              with(func(e *mail.Event) { e.Type, e.UniqueID, e.At = "", "", time.Time{} }),
		head + `,"timestamp":1e300}`:                                                             with(func(e *mail.Event) { e.Type, e.UniqueID, e.At = "", "", time.Time{} }),
		head + `,"timestamp":-1}`:                                                                with(func(e *mail.Event) { e.Type, e.UniqueID, e.At = "", "", time.Time{} }),
		head + `,"client-info":{"bot":"generic"}}`:                                               base,
		head + `,"event":"failed","severity":"permanent","delivery-status":{"code":552,"message":"552 5.2.2 mailbox full"}}`: with(func(e *mail.Event) {
			e.Type, e.Name = mail.EventBounced, "failed/permanent"
			e.Bounce = &mail.Bounce{Class: mail.Soft, Reason: mail.MailboxFull, Code: "552", Enhanced: "5.2.2", Text: "552 5.2.2 mailbox full", Rule: "reply/mailbox_full"}
		}),
		head + `,"id":7}`:                                       with(func(e *mail.Event) { e.UniqueID = "2018-03-19/7" }),
		head + `,"id":null}`:                                    with(func(e *mail.Event) { e.UniqueID = "" }),
		head + `,"event":"teleported"}`:                         with(func(e *mail.Event) { e.Type, e.Name = "", "teleported" }),
		head + `,"event":"Delivered"}`:                          with(func(e *mail.Event) { e.Type, e.Name = "", "Delivered" }),
		head + `,"event":["delivered"]}`:                        with(func(e *mail.Event) { e.Type, e.Name = "", "" }),
		head + `,"event":"failed"}`:                             with(func(e *mail.Event) { e.Type, e.Name = "", "failed/" }),
		head + `,"event":"opened","client-info":{"bot":""}}`:    with(func(e *mail.Event) { e.Type, e.Name = mail.EventOpened, "opened" }),
		head + `,"event":"opened","client-info":{"bot":false}}`: with(func(e *mail.Event) { e.Type, e.Name = mail.EventOpened, "opened" }),
		head + `,"event":"clicked","url":"https://x.example/a\u0000\nb"}`: with(func(e *mail.Event) {
			e.Type, e.Name, e.URL = mail.EventClicked, "clicked", "https://x.example/ab"
		}),
		head + `,"event":"clicked","client-info":{"bot":"generic"}}`: with(func(e *mail.Event) {
			e.Type, e.Name, e.Machine = mail.EventClicked, "clicked", true
		}),
		``: {}, `[]`: {}, `null`: {}, `{}`: {}, `[{"event":"delivered"}]`: {}, `{"event":"delivered"`: {},
	} {
		if want.Type == mail.EventUnmapped && want.UniqueID == "" {
			want.Detail = eventjson.Digest([]byte(raw)) // so that it differs from others
		}
		if diff := cmp.Diff([]mail.Event{want}, parser(t).Parse([]byte(raw))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestWhomARejectionIsAbout(t *testing.T) {
	t.Parallel()
	many := make([]string, 0, 1200)
	for i := range cap(many) {
		many = append(many, fmt.Sprintf("u%d@example.org", i))
	}
	for name, c := range map[string]struct {
		members string
		want    []string
	}{
		"recipient goes first": {`"recipient":"ann@example.org","message":{"headers":{"to":"bob@example.org"}}`, []string{"ann@example.org"}},
		"envelope goes before": {`"envelope":{"targets":"ann@example.org"},"message":{"headers":{"to":"bob@example.org"}}`, []string{"ann@example.org"}},
		"envelope as a list":   {`"envelope":{"targets":["ann@example.org","bob@example.org"]}`, []string{"ann@example.org", "bob@example.org"}},
		"envelope as a string": {`"envelope":{"targets":"ann@example.org,bob@example.org"}`, []string{"ann@example.org", "bob@example.org"}},
		"empty envelope":       {`"envelope":{},"message":{"headers":{"to":"bob@example.org"}}`, []string{"bob@example.org"}},
		"nobody":               {`"message":{"headers":{"to":"undisclosed-recipients:;"}}`, []string{""}},
		"unreadable":           {`"message":{"headers":{"to":"ann@example.org,,<"}}`, []string{""}},
		"not one we mail":      {`"message":{"headers":{"to":"ann@[192.0.2.1], bob@example.org"}}`, []string{"bob@example.org"}},
		"more than there are":  {`"envelope":{"targets":"` + strings.Join(many, ",") + `"}`, many[:1000]},
		"far too long":         {`"envelope":{"targets":"` + strings.Repeat("u@example.org,", 5000) + `u@example.org"}`, []string{""}},
	} {
		events := parser(t).Parse([]byte(`{"event":"rejected","id":"a","timestamp":1521472262,` + c.members + `}`))
		var got []string
		for _, e := range events {
			got = append(got, e.Recipient)
			if (e.Type == mail.EventRejected) != (e.Recipient != "") {
				t.Errorf("%s: event of %q is %q", name, e.Recipient, e.Type)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The same id on another day is another event, and one id of a rejection serves several recipients.
func TestEventKeys(t *testing.T) {
	t.Parallel()
	day := func(timestamp string) mail.Event {
		return parser(t).Parse([]byte(strings.Replace(sample(t, "delivered"), "1521472262.908181", timestamp, 1)))[0]
	}
	monday, again, tuesday := day("1521472262.908181"), day("1521472262.908181"), day("1521558662.908181")
	a, _ := monday.Keys(1)
	b, _ := again.Keys(1)
	c, _ := tuesday.Keys(1)
	if a != b || a == c {
		t.Errorf("keys of one event twice, and of its id a day later: %s, %s, %s", a, b, c)
	}
	rejected := parser(t).Parse([]byte(sample(t, "rejected")))
	ann, annContent := rejected[0].Keys(1)
	carol, carolContent := rejected[1].Keys(1)
	if ann == carol || annContent == carolContent {
		t.Error("two recipients of a rejection have one key")
	}
}

// FuzzParse checks that the parser keeps what the store relies on, for any input.
func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/events/*.json")
	if err != nil || len(names) == 0 {
		f.Fatal("no samples", err)
	}
	for _, name := range names {
		f.Add([]byte(sample(f, strings.TrimSuffix(filepath.Base(name), ".json"))))
	}
	f.Add([]byte(`{"event":"failed","severity":"permanent","user-variables":"{\"gw_msg\":1}","recipient":["a"],"envelope":{"targets":[1]}}`))
	f.Add([]byte(`{"event":"rejected","timestamp":1e9,"message":{"headers":{"to":"a@b.example, \"x\" <c@d.example>"}}}`))
	f.Add([]byte("{\"event\":\"clicked\\u0000\",\"url\":\"\xff\"}"))
	c := parser(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		events := c.Parse(raw)
		if len(events) == 0 || len(events) > provider.MaxHookEvents {
			t.Fatalf("%d events", len(events))
		}
		if diff := cmp.Diff(events, c.Parse(raw)); diff != "" {
			t.Errorf("the second reading differs:\n%s", diff)
		}
		for _, e := range events {
			providertest.CheckStorable(t, &e)
			if strings.ContainsFunc(fmt.Sprint(e.Name, e.UniqueID, e.ProviderMessageID, e.URL, e.Bounce), func(r rune) bool { return r < ' ' }) {
				t.Errorf("control characters in %+v", e)
			}
			if e.Bounce != nil && e.Bounce.Class == mail.Hard && e.Type == mail.EventDeferred {
				t.Errorf("deferred for a hard reason: %+v", *e.Bounce)
			}
			if a, err := mail.ParseAddress(e.Recipient); e.Recipient != "" && (err != nil || a.Email != e.Recipient) {
				t.Errorf("recipient %q is not canonical: %v", e.Recipient, err)
			}
			if e.Type != mail.EventUnmapped && (e.Recipient == "" || e.At.IsZero()) {
				t.Errorf("%s of %q at %s", e.Type, e.Recipient, e.At)
			}
			if needs := e.Type == mail.EventBounced || e.Type == mail.EventRejected || e.Type == mail.EventDeferred; needs && e.Bounce == nil {
				t.Errorf("%s without a bounce", e.Type)
			}
		}
	})
}
