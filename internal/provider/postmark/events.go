package postmark

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// maxURL caps the address of a click, in bytes.
const maxURL = 2000

// unreadable is the name of what is authentic and no event.
const unreadable = "unreadable"

// Parse implements provider.EventParser. Raw is one request of Postmark's, or one event that a look-up brought: one
// event, always.
func (c *Client) Parse(raw []byte) []mail.Event { return []mail.Event{parse(raw)} }

func parse(raw []byte) mail.Event {
	var f fields
	if err := json.Unmarshal(raw, &f); err != nil || f.text("RecordType") == "" {
		return mail.Event{Name: unreadable, Detail: digest(raw)}
	}
	word := f.text("RecordType")
	e := mail.Event{Name: provider.Cut(word), MessageID: f.messageID(), ProviderMessageID: provider.Cut(f.text("MessageID"))}
	r, known := records()[word]
	if !known {
		e.Detail = digest(raw)
		return e
	}
	e.Type, e.At, e.Recipient, e.Detail = r.event, f.time(r.at), address(f.text(r.recipient)), f.join(r.tells)
	if id := f.text("ID"); r.numbered && id != "" && id != "0" {
		e.UniqueID = provider.Cut(word + "/" + id)
	}
	switch word {
	case "Bounce":
		f.bounce(&e)
	case "SubscriptionChange":
		f.subscription(&e)
	case "Click":
		e.URL = link(f.text("OriginalLink"))
	case messageEvent:
		f.messageEvent(&e)
	}
	return e
}

// bounce goes by Type. For the words of the receiving host there is Details, and Description is Postmark's own.
func (f fields) bounce(e *mail.Event) {
	kind := f.text("Type")
	e.Name = name("Bounce", kind)
	t := bounceTypes()[kind]
	e.Type = t.event
	if t.reason != "" {
		e.Bounce = t.bounce(kind, cmp.Or(f.text("Details"), f.text("Description")))
	}
}

func (t bounceType) bounce(kind, text string) *mail.Bounce {
	code, enhanced := smtpcode.Find(text)
	return t.why(kind, code, enhanced, text).Bounce(provider.Cut(code), provider.Cut(enhanced), provider.Cut(text))
}

// subscription tells a recipient who left, or was taken off, from what mirrors a bounce or a complaint, which has an
// event of its own and must not count twice. Mail that is allowed again is no event of ours either.
func (f fields) subscription(e *mail.Event) {
	reason := f.text("SuppressionReason")
	e.Name = name("SubscriptionChange", reason)
	if reason == "ManualSuppression" && string(f["SuppressSending"]) == "true" {
		e.Type = mail.EventUnsubscribed
	}
}

// messageEvent reads what a look-up brought. A delivery goes by the name of its webhook, so that the two are one.
func (f fields) messageEvent(e *mail.Event) {
	kind := f.text("Type")
	e.Name = name(messageEvent, kind)
	t := messageEvents()[kind]
	switch e.Type = t.event; e.Type {
	case mail.EventDelivered:
		e.Name, e.Detail = "Delivery", ""
	case mail.EventDeferred:
		var d fields
		_ = json.Unmarshal(f["Details"], &d) // without them there is still the event
		e.Bounce = t.bounce(kind, d.text("DeliveryMessage"))
	case mail.EventUnmapped, mail.EventAccepted, mail.EventBounced, mail.EventRejected, mail.EventComplained,
		mail.EventUnsubscribed, mail.EventOpened, mail.EventClicked, mail.EventFailedUnknown, mail.EventEndpointDisabled:
	}
}

func name(record, kind string) string {
	if kind == "" {
		return record
	}
	return provider.Cut(record + "/" + kind)
}

// fields are the members of an object by their exact names.
type fields map[string]json.RawMessage

// text is a member that is a string or a number, else "".
func (f fields) text(name string) string {
	var s string
	if json.Unmarshal(f[name], &s) == nil {
		return s
	}
	var n json.Number
	if json.Unmarshal(f[name], &n) == nil {
		return n.String()
	}
	return ""
}

// time reads RFC 3339, to the microsecond: Postmark gives seven digits, and Postgres keeps six. A year that Postmark
// can't mean is no time.
func (f fields) time(name string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, f.text(name))
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 2200 {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
}

// messageID is our own id, which travels in the metadata.
func (f fields) messageID() mail.ID {
	var metadata fields
	if json.Unmarshal(f["Metadata"], &metadata) != nil {
		return mail.ID{}
	}
	id, err := mail.ParseID(metadata.text(provider.MessageKey))
	if err != nil {
		return mail.ID{}
	}
	return id
}

// join puts members together, to tell two events apart and not to be read.
func (f fields) join(names []string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString(string(f[name]) + ";")
	}
	return provider.Cut(b.String())
}

// address is the canonical form if it is an address.
func address(s string) string {
	if a, err := mail.ParseAddress(s); err == nil {
		return a.Email
	}
	return provider.Cut(s)
}

// link caps a URL and takes out what no URL holds.
func link(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > maxURL {
		s = strings.ToValidUTF8(s[:maxURL], "")
	}
	return s
}

func digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
