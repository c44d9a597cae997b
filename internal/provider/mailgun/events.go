package mailgun

import (
	"cmp"
	"encoding/json"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/eventjson"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// eventData is one event of a webhook or of the events API, with the fields that we read ("Event Structure").
type eventData struct {
	Event     scalar          `json:"event"`
	ID        scalar          `json:"id"`        // unique within a day
	Timestamp scalar          `json:"timestamp"` // seconds since 1970, with a fraction
	Severity  scalar          `json:"severity"`  // of failed
	Reason    scalar          `json:"reason"`    // of failed
	Recipient scalar          `json:"recipient"`
	URL       scalar          `json:"url"`            // of clicked
	Variables json.RawMessage `json:"user-variables"` // an object, or a string that holds one
	Client    struct {
		Bot scalar `json:"bot"`
	} `json:"client-info"`
	Envelope struct {
		Targets json.RawMessage `json:"targets"` // a list, or one string
	} `json:"envelope"`
	Message struct {
		Headers struct {
			To        scalar `json:"to"`
			MessageID scalar `json:"message-id"`
		} `json:"headers"`
	} `json:"message"`
	Status struct {
		Code        scalar `json:"code"`
		Enhanced    scalar `json:"enhanced-code"`
		Message     scalar `json:"message"`
		Description scalar `json:"description"`
	} `json:"delivery-status"`
	Reject struct {
		Reason      scalar `json:"reason"`
		Description scalar `json:"description"`
	} `json:"reject"`
}

// types maps Mailgun's events; failed ones have their severity in the key. An event that is not listed (stored,
// list_uploaded, ...) is not about a message of ours.
var types = map[string]mail.EventType{
	"accepted":         mail.EventAccepted,
	"delivered":        mail.EventDelivered,
	"failed/temporary": mail.EventDeferred,
	"failed/permanent": mail.EventBounced, // or rejected, depending on the cause
	"rejected":         mail.EventRejected,
	"complained":       mail.EventComplained,
	"unsubscribed":     mail.EventUnsubscribed,
	"opened":           mail.EventOpened,
	"clicked":          mail.EventClicked,
}

// Parse implements provider.EventParser. An event that it does not understand is one unmapped event.
func (c *Client) Parse(raw []byte) []mail.Event { return parse(raw) }

// parse reads one event. It returns one event for each recipient; only a rejection has several.
func parse(raw []byte) []mail.Event {
	var d eventData
	_ = json.Unmarshal(raw, &d) // invalid JSON leaves all fields empty; a field of an undocumented kind leaves only itself empty
	e := d.base()
	recipients := d.recipients()
	if len(recipients) == 0 || e.At.IsZero() {
		e.Type = mail.EventUnmapped // a mapped event has both
	}
	if e.Type == mail.EventUnmapped && e.UniqueID == "" {
		e.Detail = eventjson.Digest(raw)
	}
	if len(recipients) == 0 {
		return []mail.Event{e}
	}
	events := make([]mail.Event, 0, len(recipients))
	for _, email := range recipients {
		e.Recipient = email
		events = append(events, e)
	}
	return events
}

// base is the event without its recipient.
func (d *eventData) base() mail.Event {
	kind, name := d.kind()
	e := mail.Event{
		Type: types[kind], Name: provider.Cut(name), MessageID: d.ours(), ProviderMessageID: d.messageID(), At: d.at(),
		Bounce: d.bounce(types[kind]),
	}
	if e.Bounce != nil && e.Bounce.Class == "" {
		e.Type = mail.EventRejected // Mailgun did not try
	}
	if d.ID != "" && !e.At.IsZero() {
		e.UniqueID = provider.Cut(e.At.Format("2006-01-02") + "/" + string(d.ID))
	}
	if e.Type == mail.EventClicked {
		e.URL = eventjson.Link(string(d.URL))
	}
	e.Machine = d.Client.Bot != "" && (e.Type == mail.EventOpened || e.Type == mail.EventClicked)
	return e
}

// kind returns the key of types, and the name that is shown.
func (d *eventData) kind() (kind, name string) {
	kind = string(d.Event)
	if kind != "failed" {
		return kind, kind
	}
	kind += "/" + string(d.Severity)
	if d.Reason == "" {
		return kind, kind
	}
	return kind, kind + "/" + string(d.Reason)
}

// at is when it happened, to the millisecond, or zero if the event does not say so.
func (d *eventData) at() time.Time {
	seconds, err := strconv.ParseFloat(string(d.Timestamp), 64)
	if err != nil || !(seconds > 0 && seconds < 1<<33) { // until the year 2242
		return time.Time{}
	}
	return time.UnixMilli(int64(seconds * 1000)).UTC()
}

// messageID is Mailgun's id of the message, which is our Message-ID, as Send returns it.
func (d *eventData) messageID() string {
	return provider.Cut(strings.Trim(strings.TrimSpace(string(d.Message.Headers.MessageID)), "<>"))
}

// ours is our id: the variable that Send sets, or else the local part of the Message-ID, for events without variables. The name
// is matched exactly: a caller's own "GW_MSG" is another variable.
func (d *eventData) ours() mail.ID {
	variables := []byte(d.Variables)
	var text string
	if json.Unmarshal(variables, &text) == nil {
		variables = []byte(text)
	}
	var named map[string]scalar
	_ = json.Unmarshal(variables, &named) // no object, no variables
	if id, err := mail.ParseID(string(named[provider.MessageKey])); err == nil {
		return id
	}
	local, _, _ := strings.Cut(d.messageID(), "@")
	id, err := mail.ParseID(local)
	if err != nil {
		return mail.ID{}
	}
	return id
}

// Caps on the fields of an event, in bytes.
const (
	maxList = 64 << 10 // recipients that are parsed
)

// recipients are the canonical addresses that the event is about. A rejection has no recipient of its own: it is about the
// envelope or, if that is missing, about the addresses in To.
func (d *eventData) recipients() []string {
	if d.Recipient != "" {
		a, err := mail.ParseMailbox(string(d.Recipient))
		if err != nil {
			return nil
		}
		return []string{a.Email}
	}
	if d.Event != "rejected" {
		return nil
	}
	if all := addresses(d.targets()); len(all) > 0 {
		return all
	}
	return addresses(string(d.Message.Headers.To))
}

func (d *eventData) targets() string {
	var list []string
	if json.Unmarshal(d.Envelope.Targets, &list) == nil {
		return strings.Join(list, ", ")
	}
	var one scalar
	_ = json.Unmarshal(d.Envelope.Targets, &one) // missing: none
	return string(one)
}

// addresses reads a header field with a list of mailboxes. It returns each address once.
func addresses(field string) []string {
	if len(field) > maxList {
		return nil
	}
	list, err := netmail.ParseAddressList(field)
	if err != nil {
		return nil
	}
	var all []string
	seen := map[string]bool{}
	for _, m := range list {
		a, err := mail.ParseAddress(m.Address)
		if err != nil || seen[a.Email] || len(all) == maxRecipients {
			continue
		}
		seen[a.Email] = true
		all = append(all, a.Email)
	}
	return all
}

// cause maps failures with the given code, Mailgun's reason and lower-case text. An empty field matches everything.
type cause struct {
	code, reason, text string

	is      mail.Reason
	byReply bool // the receiving host's reply decides; is applies if it says nothing, and a hard one only if there is no reply
}

// causes are tried in order; the first match decides. Codes from 498 are Mailgun's own and not SMTP's ("Tracking Failures"). The
// reasons are those of mailgun-go's events.Failed. A row with a hard reason is skipped if the failure is temporary. Mailgun uses
// "bounce" for every 5xx.
var causes = []cause{
	{code: "605", is: mail.SuppressedBounce},
	{code: "606", is: mail.SuppressedUnsubscribe},
	{code: "607", is: mail.SuppressedComplaint},
	{reason: "suppress-bounce", is: mail.SuppressedBounce},
	{reason: "suppress-unsubscribe", is: mail.SuppressedUnsubscribe},
	{reason: "suppress-complaint", is: mail.SuppressedComplaint},
	{code: "498", text: "no mx", is: mail.InvalidDomain},
	{code: "498", is: mail.Connection},
	{code: "499", is: mail.TimedOut},
	{reason: "old", is: mail.TimedOut}, // retried for 8 hours without success
	{reason: "espblock", is: mail.BlockedPolicy},
	{reason: "blacklisted", is: mail.Reputation},
	{reason: "greylisted", is: mail.ThrottledThere},
	{reason: "bounce", is: mail.InvalidAddress, byReply: true},
	{reason: "hardfail", is: mail.InvalidAddress, byReply: true},
	{is: mail.Undetermined, byReply: true}, // generic, and new reasons
}

// failure is what an event says about the cause.
type failure struct {
	code, enhanced, reason, text string
	temporary                    bool
}

// bounce says why, for the types that say why. Its Class is "" when Mailgun did not try.
func (d *eventData) bounce(t mail.EventType) *mail.Bounce {
	if t == mail.EventRejected {
		text := cmp.Or(d.Reject.Description, d.Reject.Reason)
		return &mail.Bounce{Reason: mail.OtherReason, Rule: "mailgun/rejected", Text: provider.Cut(string(text))}
	}
	if t != mail.EventBounced && t != mail.EventDeferred {
		return nil
	}
	return failure{
		code: string(d.Status.Code), enhanced: string(d.Status.Enhanced), reason: string(d.Reason),
		text: string(cmp.Or(d.Status.Message, d.Status.Description)), temporary: t == mail.EventDeferred,
	}.bounce()
}

func (f failure) bounce() *mail.Bounce {
	if f.code == "0" {
		f.code = ""
	}
	if f.enhanced == "" {
		_, f.enhanced = smtpcode.Find(f.text)
	}
	return f.because().Bounce(provider.Cut(f.code), provider.Cut(f.enhanced), provider.Cut(f.text))
}

// because returns the verdict of the first matching cause.
func (f failure) because() smtpcode.Verdict {
	for _, c := range causes {
		if !f.matches(c) {
			continue
		}
		own := smtpcode.Own(c.is, "mailgun/"+cmp.Or(c.code, c.reason, "generic"))
		if !c.byReply {
			return own
		}
		said := f.byReply()
		if said.Reason == mail.Undetermined && (own.Class != mail.Hard || f.code == "" && f.text == "") {
			return own
		}
		return said
	}
	return smtpcode.Own(mail.Undetermined, "mailgun/generic")
}

func (f failure) matches(c cause) bool {
	if c.is.Class() == mail.Hard && f.temporary {
		return false
	}
	return (c.code == "" || c.code == f.code) && (c.reason == "" || c.reason == f.reason) &&
		(c.text == "" || strings.Contains(strings.ToLower(f.text), c.text))
}

// byReply is the verdict on the reply. It is never hard for a failure that Mailgun itself calls temporary.
func (f failure) byReply() smtpcode.Verdict {
	code := f.code
	if len(code) != 3 || code[0] != '4' && code[0] != '5' {
		code = "" // one of Mailgun's own
	}
	said := smtpcode.Classify(code, f.enhanced, f.text)
	if f.temporary {
		said = said.NotHard()
	}
	return said
}
