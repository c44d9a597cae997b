package emulator

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// postmarkHerald posts as the pages "Webhooks" of the Postmark developer documentation say. There is no signature: who
// posts shows a password or a header.
type postmarkHerald struct{ messenger }

// verdict takes exactly 200 and never comes back after 403.
func (postmarkHerald) verdict(status int) verdict {
	switch status {
	case http.StatusOK:
		return told
	case http.StatusForbidden:
		return final
	}
	return again
}

// retries are ten for bounces, and three, of 1, 5 and 15 minutes, for the rest.
func (postmarkHerald) retries(p *post) []int {
	switch p.events[0].what {
	case wasBounced, wasSoftBounced, wasDeferred:
		return []int{1, 2, 5, 10, 10, 10, 15, 15, 30, 30}
	case wasAccepted, wasDelivered, wasDropped, wasComplained, wasDeactivated, wasOpened, wasClicked:
	}
	return []int{1, 5, 15}
}

func (postmarkHerald) compose(p *post) error {
	body, err := json.Marshal(postmarkEvent(&p.events[0]), json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode postmark event: %w", err)
	}
	p.body, p.header = body, p.target.postmarkHeader(p.forged)
	return nil
}

// postmarkHeader shows the credential, or a wrong one.
func (t *target) postmarkHeader(forged bool) http.Header {
	h := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Postmark"}, "Accept": {"*/*"}}
	for name, values := range t.headers {
		h[name] = values
	}
	password, token := t.Password, t.Token
	if forged {
		password, token = randomHex(16), randomHex(16)
	}
	if t.Username+t.Password != "" {
		r := http.Request{Header: h}
		r.SetBasicAuth(t.Username, password)
	}
	if t.Header != "" {
		h.Set(t.Header, token)
	}
	return h
}

// postmarkTrigger is the switch of an event in a webhook's settings; deferred and bounces share one.
func postmarkTrigger(w what) string {
	switch w {
	case wasDelivered:
		return "Delivery"
	case wasBounced, wasSoftBounced, wasDeferred:
		return "Bounce"
	case wasComplained:
		return "SpamComplaint"
	case wasDeactivated:
		return "SubscriptionChange"
	case wasOpened:
		return "Open"
	case wasClicked:
		return "Click"
	case wasAccepted, wasDropped:
	}
	return ""
}

// postmarkTime has seven digits after the second.
func postmarkTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

func postmarkEvent(h *happening) map[string]any {
	l := h.of
	m := map[string]any{
		"RecordType": postmarkTrigger(h.what), "MessageID": l.ProviderMessageID, "MessageStream": l.stream, "ServerID": 23,
		"Tag": strings.Join(l.tags, ""), "Metadata": orNone(l.args),
	}
	switch h.what {
	case wasDelivered:
		m["Recipient"], m["DeliveredAt"] = h.to[0], postmarkTime(h.at)
		m["Details"] = "smtp;250 2.0.0 OK " + queueOf(h)
	case wasBounced, wasSoftBounced, wasDeferred, wasComplained:
		postmarkBounce(h, m)
	case wasDeactivated:
		m["Recipient"], m["ChangedAt"], m["Origin"] = h.to[0], postmarkTime(h.at), "Recipient"
		m["SuppressSending"], m["SuppressionReason"] = true, "HardBounce"
		if OutcomeOf(h.to[0]) == outcomeComplaint {
			m["SuppressionReason"] = "SpamComplaint"
		}
	case wasOpened:
		postmarkReader(h, m)
		m["FirstOpen"], m["ReadSeconds"] = true, 5
	case wasClicked:
		postmarkReader(h, m)
		m["OriginalLink"], m["ClickLocation"] = clickedURL, "HTML"
	case wasAccepted, wasDropped:
	}
	return m
}

// postmarkBounce has the types of the page "Bounce webhook".
func postmarkBounce(h *happening, m map[string]any) {
	typed := func(name string, code int, title, description, details string, inactive bool) {
		m["Type"], m["TypeCode"], m["Name"] = name, code, title
		m["Description"], m["Details"], m["Inactive"], m["CanActivate"] = description, details, inactive, inactive
	}
	switch h.what {
	case wasSoftBounced:
		typed("SoftBounce", 4096, "Soft bounce", "Unable to temporarily deliver message (i.e. mailbox full, account disabled, "+
			"exceeds quota, out of disk space).", "smtp;"+textFull(h.to[0]), false)
	case wasDeferred:
		typed("Transient", 2, "Message delayed", "The server could not temporarily deliver your message (ex: Message is "+
			"delayed due to network troubles).", "smtp;"+textDeferred, false)
	case wasComplained:
		typed("SpamComplaint", 100001, "Spam complaint", "The subscriber explicitly marked this message as spam.",
			"Test spam complaint details", true)
		m["CanActivate"] = false
	case wasBounced, wasAccepted, wasDelivered, wasDropped, wasDeactivated, wasOpened, wasClicked:
		typed("HardBounce", 1, "Hard bounce", "The server was unable to deliver your message (ex: unknown user, mailbox not "+
			"found).", "smtp;"+textBounced(h.to[0]), true)
	}
	m["ID"], m["Email"], m["From"] = h.number("ID"), h.to[0], h.of.From
	m["BouncedAt"], m["DumpAvailable"], m["Subject"] = postmarkTime(h.at), true, h.of.Subject
}

func postmarkReader(h *happening, m map[string]any) {
	m["Recipient"], m["ReceivedAt"], m["Platform"], m["UserAgent"] = h.to[0], postmarkTime(h.at), "Desktop", readerAgent
	m["Client"] = map[string]string{"Name": "Firefox 130.0", "Company": "Mozilla Foundation", "Family": "Firefox"}
	m["OS"] = map[string]string{"Name": "Linux", "Company": "Canonical", "Family": "Linux"}
	m["Geo"] = map[string]string{
		"CountryISOCode": "US", "Country": "United States", "RegionISOCode": "TX", "Region": "Texas", "City": "Austin",
		"Zip": "73301", "Coords": "30.2672,-97.7431", "IP": readerIP,
	}
}
