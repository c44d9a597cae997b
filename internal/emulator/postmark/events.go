package postmark

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// course lists no event for an accepted message, and one more for an address that Postmark deactivates.
func course(outcome string) []emulator.EventType {
	all := emulator.Course(outcome)
	if outcome == emulator.OutcomeBounce || outcome == emulator.OutcomeComplaint {
		return append(all, emulator.Deactivated)
	}
	return all
}

// Answered accepts only 200 and never retries after 403. There are ten repetitions for bounces, and three, after 1, 5 and 15
// minutes, for the rest.
func (*api) Answered(p *emulator.Post, status int) (bool, []int) {
	switch {
	case status == http.StatusForbidden:
		return false, nil
	case triggers[p.Events[0].Type] == "Bounce":
		return status == http.StatusOK, []int{1, 2, 5, 10, 10, 10, 15, 15, 30, 30}
	}
	return status == http.StatusOK, []int{1, 5, 15}
}

// Compose adds a password or a header, or a wrong one: there is no signature.
func (*api) Compose(p *emulator.Post) error {
	body, err := json.Marshal(record(&p.Events[0]), json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode postmark event: %w", err)
	}
	h := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Postmark"}, "Accept": {"*/*"}}
	if w, ok := p.Target.Registration.(*webhook); ok {
		maps.Copy(h, w.headers)
	}
	to := p.Target.Hook
	password, token := to["password"], to["token"]
	if p.Forged {
		password, token = emulator.RandomHex(16), emulator.RandomHex(16)
	}
	if to["username"]+to["password"] != "" {
		r := http.Request{Header: h}
		r.SetBasicAuth(to["username"], password)
	}
	if to["header"] != "" {
		h.Set(to["header"], token)
	}
	p.Header, p.Body = h, body
	return nil
}

// triggers are the names of the switches in a webhook's settings, by event; deferred and bounces share one.
var triggers = map[emulator.EventType]string{
	emulator.Delivered:   "Delivery",
	emulator.Bounced:     "Bounce",
	emulator.SoftBounced: "Bounce",
	emulator.Deferred:    "Bounce",
	emulator.Complained:  "SpamComplaint",
	emulator.Deactivated: "SubscriptionChange",
	emulator.Opened:      "Open",
	emulator.Clicked:     "Click",
}

// timeText writes seven digits after the second.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

func record(h *emulator.Event) map[string]any {
	l := h.Message
	m := map[string]any{
		"RecordType": triggers[h.Type], "MessageID": l.ProviderMessageID, "MessageStream": l.Channel, "ServerID": 23,
		"Tag": strings.Join(l.Tags, ""), "Metadata": l.Args,
	}
	switch h.Type {
	case emulator.Delivered:
		m["Recipient"], m["DeliveredAt"] = h.To[0], timeText(h.At)
		m["Details"] = "smtp;250 2.0.0 OK " + emulator.QueueID(h)
	case emulator.Bounced, emulator.SoftBounced, emulator.Deferred, emulator.Complained:
		bounce(h, m)
	case emulator.Deactivated:
		m["Recipient"], m["ChangedAt"], m["Origin"] = h.To[0], timeText(h.At), "Recipient"
		m["SuppressSending"], m["SuppressionReason"] = true, "HardBounce"
		if emulator.OutcomeOf(h.To[0]) == emulator.OutcomeComplaint {
			m["SuppressionReason"] = "SpamComplaint"
		}
	case emulator.Opened:
		reader(h, m)
		m["FirstOpen"], m["ReadSeconds"] = true, 5
	case emulator.Clicked:
		reader(h, m)
		m["OriginalLink"], m["ClickLocation"] = emulator.ClickedURL, "HTML"
	case emulator.Accepted, emulator.Dropped:
	}
	return m
}

// bounce adds the fields of the page "Bounce webhook".
func bounce(h *emulator.Event, m map[string]any) {
	typed := func(name string, code int, title, description, details string, inactive bool) {
		m["Type"], m["TypeCode"], m["Name"] = name, code, title
		m["Description"], m["Details"], m["Inactive"], m["CanActivate"] = description, details, inactive, inactive
	}
	switch h.Type {
	case emulator.SoftBounced:
		typed("SoftBounce", 4096, "Soft bounce", "Unable to temporarily deliver message (i.e. mailbox full, account disabled, "+
			"exceeds quota, out of disk space).", "smtp;"+emulator.TextFull(h.To[0]), false)
	case emulator.Deferred:
		typed("Transient", 2, "Message delayed", "The server could not temporarily deliver your message (ex: Message is "+
			"delayed due to network troubles).", "smtp;"+emulator.TextDeferred, false)
	case emulator.Complained:
		typed("SpamComplaint", 100001, "Spam complaint", "The subscriber explicitly marked this message as spam.",
			"Test spam complaint details", true)
		m["CanActivate"] = false
	case emulator.Bounced, emulator.Accepted, emulator.Delivered, emulator.Dropped, emulator.Deactivated, emulator.Opened, emulator.Clicked:
		typed("HardBounce", 1, "Hard bounce", "The server was unable to deliver your message (ex: unknown user, mailbox not "+
			"found).", "smtp;"+emulator.TextBounced(h.To[0]), true)
	}
	m["ID"], m["Email"], m["From"] = h.Number("ID"), h.To[0], h.Message.From
	m["BouncedAt"], m["DumpAvailable"], m["Subject"] = timeText(h.At), true, h.Message.Subject
}

func reader(h *emulator.Event, m map[string]any) {
	m["Recipient"], m["ReceivedAt"], m["Platform"], m["UserAgent"] = h.To[0], timeText(h.At), "Desktop", emulator.ReaderAgent
	m["Client"] = map[string]string{"Name": "Firefox 130.0", "Company": "Mozilla Foundation", "Family": "Firefox"}
	m["OS"] = map[string]string{"Name": "Linux", "Company": "Canonical", "Family": "Linux"}
	m["Geo"] = map[string]string{
		"CountryISOCode": "US", "Country": "United States", "RegionISOCode": "TX", "Region": "Texas", "City": "Austin",
		"Zip": "73301", "Coords": "30.2672,-97.7431", "IP": emulator.ReaderIP,
	}
}
