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
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// eventData is one event of a webhook or of the events API, as far as it is read ("Event Structure").
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

// types maps Mailgun's events, failed ones with their severity. What is not listed (stored, list_uploaded, ...) is not
// about a message of ours.
var types = map[string]mail.EventType{
	"accepted":         mail.EventAccepted,
	"delivered":        mail.EventDelivered,
	"failed/temporary": mail.EventDeferred,
	"failed/permanent": mail.EventBounced, // or rejected, by its cause
	"rejected":         mail.EventRejected,
	"complained":       mail.EventComplained,
	"unsubscribed":     mail.EventUnsubscribed,
	"opened":           mail.EventOpened,
	"clicked":          mail.EventClicked,
}

// Parse implements provider.EventParser. What it can't make sense of is one unmapped event.
func (c *Client) Parse(raw []byte) []mail.Event { return parse(raw) }

// parse reads one event. It gives one for each recipient, of which only a rejection has several.
func parse(raw []byte) []mail.Event {
	var d eventData
	_ = json.Unmarshal(raw, &d) // what is no JSON leaves all of it empty, a field of another kind than documented itself
	e := d.base()
	recipients := d.recipients()
	if len(recipients) == 0 || e.At.IsZero() {
		e.Type = mail.EventUnmapped // of a mapped one these are known
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
		e.URL = link(string(d.URL))
	}
	e.Machine = d.Client.Bot != "" && (e.Type == mail.EventOpened || e.Type == mail.EventClicked)
	return e
}

// link caps a URL and takes out what no URL holds, so that it can be stored and shown.
func link(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxLink)], "")
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

// at is when it happened, to the millisecond, or zero when it does not say so.
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

// ours is our id: the variable that Send sets, else the local part of the Message-ID, for events that come without
// variables. The name is looked up as it is: a caller's own "GW_MSG" is another variable.
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

// The caps of what an event holds, in bytes.
const (
	maxList = 64 << 10 // recipients that are parsed
	maxLink = 2000     // the URL of a click
)

// recipients are the canonical addresses that the event is about. A rejection has no recipient of its own: it concerns
// the envelope, or where that is missing, whom the message was written to.
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

// addresses reads a header field with a list of mailboxes, each one once.
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

// cause maps failures: those with the code, Mailgun's reason and the lower-case text, each if given.
type cause struct {
	code, reason, text string

	is      mail.Reason
	byReply bool // the receiving host's reply decides; is holds when that says nothing, and if hard only when there is none
}

// causes are tried in order, the first match decides. Codes from 498 are Mailgun's own and none of SMTP ("Tracking
// Failures"); the reasons are those of mailgun-go's events.Failed. A row that condemns the address is passed over where
// the failure is temporary. Mailgun says "bounce" of every 5xx.
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
	{reason: "old", is: mail.TimedOut}, // retried for 8 hours in vain
	{reason: "espblock", is: mail.BlockedPolicy},
	{reason: "blacklisted", is: mail.Reputation},
	{reason: "greylisted", is: mail.ThrottledThere},
	{reason: "bounce", is: mail.InvalidAddress, byReply: true},
	{reason: "hardfail", is: mail.InvalidAddress, byReply: true},
	{is: mail.Undetermined, byReply: true}, // generic, and what is new
}

// failure is what an event says of why.
type failure struct {
	code, enhanced, reason, text string
	temporary                    bool
}

// bounce says why, for the types that tell why. Its Class is "" when Mailgun did not try.
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

// byReply never condemns the address for a failure that Mailgun itself calls temporary.
func (f failure) byReply() smtpcode.Verdict {
	code := f.code
	if len(code) != 3 || code[0] != '4' && code[0] != '5' {
		code = "" // of Mailgun's own
	}
	said := smtpcode.Classify(code, f.enhanced, f.text)
	if f.temporary {
		said = said.NotHard()
	}
	return said
}
