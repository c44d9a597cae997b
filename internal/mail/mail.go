// Package mail holds the types of mail: message, recipient, address, status, policy, event. It decides what a valid message
// is (Draft.Message), how the state of a message follows from its recipients (Fold), and what an event proves (Evidence). It
// does no I/O and imports nothing else of ours.
//
// A newcomer's likeliest mistake is to use an address that did not come out of ParseAddress. The parsed form is the only
// one that is stored, compared or sent.
package mail

import (
	"strings"
	"time"
)

// TenantID is the owner of keys, messages and suppressions. DefaultTenant exists from the start.
type TenantID int32

// DefaultTenant is the tenant of an installation that never made another.
const DefaultTenant TenantID = 1

// DefaultStream is the stream of a message that names none.
const DefaultStream = "transactional"

// MessageKey is the name under which our message id travels with a message, in fields that a provider returns in its
// events: custom arguments, user variables, metadata, tags. A caller's metadata may not have a key of this name, in upper
// or lower case, because some providers ignore the case.
const MessageKey = "gw_msg"

// Policy says what becomes of a message whose send has no known outcome (on_ambiguous).
type Policy string

// The policies. Reconcile waits for evidence until a deadline; Resend sends again after a short wait (at least once);
// Never gives up after a short wait (at most once).
const (
	Reconcile Policy = "reconcile"
	Resend    Policy = "resend"
	Never     Policy = "never"
)

// RecipientKind is the header that shows a recipient, or hides it.
type RecipientKind string

// The kinds of recipient.
const (
	To  RecipientKind = "to"
	Cc  RecipientKind = "cc"
	Bcc RecipientKind = "bcc"
)

// Header is one custom header field. Name and value passed Draft.Message, so neither holds CR, LF or NUL.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Attachment is one file. Content is decoded. A ContentID, stored without angle brackets, makes it an inline part.
type Attachment struct {
	Filename    string `json:"filename"`
	ContentType string `json:"content_type"`
	ContentID   string `json:"content_id,omitempty"`
	Content     []byte `json:"content"`
}

// Message is one accepted send: one envelope, one visible To list. Its addresses are canonical and unique over To, Cc
// and Bcc. It is immutable once accepted; state lives in Recipient.
type Message struct {
	ID          ID                `json:"id"`
	Tenant      TenantID          `json:"tenant"`
	CreatedAt   time.Time         `json:"created_at"`
	From        Address           `json:"from"`
	To          []Address         `json:"to"`
	Cc          []Address         `json:"cc,omitempty"`
	Bcc         []Address         `json:"bcc,omitempty"`
	ReplyTo     []Address         `json:"reply_to,omitempty"`
	Subject     string            `json:"subject"`
	Text        string            `json:"text,omitempty"`
	HTML        string            `json:"html,omitempty"`
	Headers     []Header          `json:"headers,omitempty"` // sorted by name
	Attachments []Attachment      `json:"attachments,omitempty"`
	Calendar    *Calendar         `json:"calendar,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Stream      string            `json:"stream"`
	SendAt      time.Time         `json:"send_at,omitzero"`
	ExpiresAt   time.Time         `json:"expires_at"`
	OnAmbiguous Policy            `json:"on_ambiguous"`
	Account     string            `json:"account,omitempty"` // pinned account, "" for routing by pool
}

// MessageID returns the RFC 5322 Message-ID without angle brackets. It is the same on every attempt, so that a
// receiver, and we, can recognise a duplicate.
func (m *Message) MessageID() string { return m.ID.String() + "@" + m.From.Domain() }

// Recipient is the unit of state: one address of one message.
type Recipient struct {
	N         int // position over to, cc, bcc; stable
	Kind      RecipientKind
	Address   Address
	Status    Status
	Detail    string  // why, in the provider's words, at most 500 bytes
	Bounce    *Bounce // of an event that settled it
	UpdatedAt time.Time
}

// Recipients lists the message's recipients in order, all Queued.
func (m *Message) Recipients() []Recipient {
	rs := make([]Recipient, 0, len(m.To)+len(m.Cc)+len(m.Bcc))
	add := func(kind RecipientKind, as []Address) {
		for _, a := range as {
			rs = append(rs, Recipient{N: len(rs), Kind: kind, Address: a, Status: Queued})
		}
	}
	add(To, m.To)
	add(Cc, m.Cc)
	add(Bcc, m.Bcc)
	return rs
}

// Bytes estimates the size of the message on the wire: bodies, base64 of the attachments, and headers. Providers'
// size caps are compared with it.
func (m *Message) Bytes() int64 {
	n := int64(len(m.Subject) + len(m.Text) + len(m.HTML) + 1024)
	for _, a := range m.Attachments {
		n += int64(len(a.Content))*4/3 + int64(len(a.Content))/57*2 + 512
	}
	if m.Calendar != nil {
		n += int64(len(m.Calendar.Content))*3 + 1024 // a part and a file
	}
	for _, h := range m.Headers {
		n += int64(len(h.Name) + len(h.Value) + 4)
	}
	return n + int64(len(m.To)+len(m.Cc)+len(m.Bcc))*64
}

// Facts is what routing needs to know of a message, small enough to be read without its body.
type Facts struct {
	Account       string   `json:"acc,omitempty"` // pinned account
	Stream        string   `json:"str"`
	Tags          []string `json:"tag,omitempty"`
	Sender        string   `json:"sad,omitempty"` // address, folded; "" if an older process accepted the message
	SenderDomain  string   `json:"sdo"`
	Domains       []string `json:"rdo"` // recipients' domains, unique, at most 20
	Recipients    int      `json:"rcp"`
	Bytes         int64    `json:"byt"`
	Attachments   int      `json:"att,omitempty"`
	Extensions    []string `json:"ext,omitempty"` // of the attachments, lower case, without the dot
	MetaKeys      int      `json:"mk,omitempty"`
	MetaKeyLen    int      `json:"mkl,omitempty"` // longest, in characters
	MetaValueLen  int      `json:"mvl,omitempty"` // longest, in characters
	MetaBytes     int      `json:"mb,omitempty"`  // of all metadata as one JSON object
	MaxTagLen     int      `json:"tl,omitempty"`
	NeedsSMTPUTF8 bool     `json:"u8,omitempty"` // a local part is not ASCII
	LocalMarks    string   `json:"lm,omitempty"` // punctuation in local parts, each character once
	FromLen       int      `json:"fl,omitempty"` // name in quotes and address, in UTF-16 units
	NoSubject     bool     `json:"ns,omitempty"`
	BodyBytes     int      `json:"bb,omitempty"` // of text or html, whichever is longer
	EmptyFile     bool     `json:"ef,omitempty"` // an attachment is empty
	MetaTwins     bool     `json:"mt,omitempty"` // two keys differ in case only
	Calendar      bool     `json:"cal,omitempty"`
	Content       string   `json:"con,omitempty"` // ContentHash, of an accepted message
}

// Facts derives the routing facts.
func (m *Message) Facts() Facts {
	f := Facts{
		Account: m.Account, Stream: m.Stream, Tags: m.Tags,
		Sender: FoldAddress(m.From.Email), SenderDomain: m.From.Domain(),
		Bytes: m.Bytes(), Attachments: len(m.Attachments), MetaKeys: len(m.Metadata),
		NeedsSMTPUTF8: m.From.NeedsSMTPUTF8(), Calendar: m.Calendar != nil,
	}
	m.contentFacts(&f)
	seen := map[string]bool{}
	for _, list := range [][]Address{m.To, m.Cc, m.Bcc} {
		f.Recipients += len(list)
		for _, a := range list {
			f.NeedsSMTPUTF8 = f.NeedsSMTPUTF8 || a.NeedsSMTPUTF8()
			if d := a.Domain(); !seen[d] && len(f.Domains) < 20 {
				seen[d] = true
				f.Domains = append(f.Domains, d)
			}
		}
	}
	for _, a := range m.ReplyTo { // shown in a header, which is then not ASCII either
		f.NeedsSMTPUTF8 = f.NeedsSMTPUTF8 || a.NeedsSMTPUTF8()
	}
	for k, v := range m.Metadata {
		f.MetaKeyLen = max(f.MetaKeyLen, len([]rune(k)))
		f.MetaValueLen = max(f.MetaValueLen, len([]rune(v)))
	}
	for _, t := range m.Tags {
		f.MaxTagLen = max(f.MaxTagLen, len(t))
	}
	for _, a := range m.Attachments {
		if i := strings.LastIndexByte(a.Filename, '.'); i >= 0 {
			f.Extensions = append(f.Extensions, strings.ToLower(a.Filename[i+1:]))
		}
	}
	return f
}
