package mail

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Draft is the content of a request before any check. Message makes a Message of it, or reports every mistake.
type Draft struct {
	From                 Mailbox
	To, Cc, Bcc, ReplyTo []Mailbox
	Subject, Text, HTML  string
	Headers              []Header
	Attachments          []File
	Calendar             *Calendar // nil for none
	Tags                 []string
	Metadata             map[string]string
	Stream               string // "" for DefaultStream
	SendAt, ExpiresAt    string // RFC 3339, "" for none
	OnAmbiguous          string // "" for Reconcile
	Account              string // "" for routing by pool
}

// Mailbox is an address as a request gives it: Text, which ParseMailbox reads, or else Email with Name.
type Mailbox struct{ Text, Email, Name string }

// File is an attachment as a request gives it. ContentType "" means application/octet-stream.
type File struct {
	Filename, ContentType, ContentID string
	Content                          Base64
}

// Caps bound a message. They are ours: a provider's narrower ones are left to routing.
type Caps struct {
	Recipients      int           // over to, cc and bcc, as given
	ReplyTo         int           // addresses
	Headers         int           // custom header fields
	Subject         int           // bytes
	Text, HTML      int           // bytes each
	Attachments     int           // files
	AttachmentBytes int           // decoded, all files together
	Calendar        int           // bytes
	Tags            int           // per message
	TagLen          int           // characters
	MetadataKeys    int           // per message
	MetadataKeyLen  int           // characters
	MetadataValue   int           // characters
	Expiry          time.Duration // from send_at, or from now, for a message that names no expires_at
	MaxExpiry       time.Duration // the same distance for one that does
	SendAhead       time.Duration // how far in the future send_at may lie
	SendPast        time.Duration // how far in the past; such a message is due at once
}

// DefaultCaps gives the documented caps.
func DefaultCaps() Caps {
	return Caps{
		Recipients: 1000, ReplyTo: 25, Headers: 100, Subject: 998, Text: 10 << 20, HTML: 2 << 20,
		Attachments: 50, AttachmentBytes: 30 << 20, Calendar: 1 << 20, Tags: 50, TagLen: 255,
		MetadataKeys: 50, MetadataKeyLen: 128, MetadataValue: 1000,
		Expiry: 72 * time.Hour, MaxExpiry: 30 * 24 * time.Hour,
		SendAhead: 30 * 24 * time.Hour, SendPast: 5 * time.Minute,
	}
}

// MaxFields caps the mistakes that one Invalid reports.
const MaxFields = 50

// Message checks the draft and returns its message: addresses canonical and unique by FoldAddress (to wins
// over cc, cc over bcc), names and files sanitised, defaults filled in, times in UTC. ID and Tenant are left to the
// caller. The error is an *Invalid with every mistake, at most MaxFields of them. The message shares d's strings and
// contents.
func (d *Draft) Message(now time.Time, lim Caps) (*Message, error) {
	c := checker{lim: lim}
	m := &Message{
		CreatedAt: now.UTC().Truncate(time.Millisecond), Subject: d.Subject, Text: d.Text, HTML: d.HTML,
		Stream: d.Stream, OnAmbiguous: Policy(d.OnAmbiguous), Account: d.Account, Metadata: d.Metadata,
	}
	m.From = c.mailbox("from", -1, d.From)
	c.recipients(d, m)
	m.ReplyTo = c.replyTo(d.ReplyTo)
	c.bodies(m)
	m.Headers = c.headers(d.Headers)
	m.Attachments = c.files(d.Attachments)
	m.Calendar = c.calendar(d.Calendar)
	m.Tags = c.tags(d.Tags)
	c.metadata(d.Metadata)
	c.names(m)
	m.SendAt, m.ExpiresAt = c.schedule(d, m.CreatedAt)
	if len(c.fields) > 0 {
		return nil, &Invalid{Fields: c.fields}
	}
	return m, nil
}

// checker collects mistakes. Field paths are only built once there is one.
type checker struct {
	lim    Caps
	fields []Field
}

func (c *checker) add(field, code, message string) {
	if len(c.fields) < MaxFields {
		c.fields = append(c.fields, Field{Field: field, Code: code, Message: message})
	}
}

func (c *checker) fault(field string, f *fault) {
	if f != nil {
		c.add(field, f.code, f.message)
	}
}

// element names the i-th element of a list; i < 0 means that the field is not a list.
func element(field string, i int) string {
	if i < 0 {
		return field
	}
	return field + "[" + strconv.Itoa(i) + "]"
}

// mailbox parses one mailbox. The result is valid only if no mistake was added.
func (c *checker) mailbox(field string, i int, b Mailbox) Address {
	if b.Text != "" {
		a, _, f := parseMailbox(b.Text)
		if f != nil {
			c.fault(element(field, i), f)
		}
		return a
	}
	a, f := parseAddress(b.Email)
	switch {
	case f == nil:
	case b.Email == "" && b.Name == "":
		c.fault(element(field, i), f)
	default:
		c.fault(element(field, i)+".email", f)
	}
	if b.Name != "" {
		if a.Name, f = cleanName(b.Name); f != nil {
			c.fault(element(field, i)+".name", f)
		}
	}
	return a
}

func (c *checker) recipients(d *Draft, m *Message) {
	n := len(d.To) + len(d.Cc) + len(d.Bcc)
	if n > c.lim.Recipients {
		c.add("to", "too_many_recipients", fmt.Sprintf("%d recipients are over the cap of %d", n, c.lim.Recipients))
		return
	}
	if len(d.To) == 0 {
		c.add("to", "required", "a message needs at least one recipient in to")
	}
	seen := make(map[string]struct{}, n)
	m.To = c.addresses("to", d.To, seen)
	m.Cc = c.addresses("cc", d.Cc, seen)
	m.Bcc = c.addresses("bcc", d.Bcc, seen)
}

// addresses parses a list and leaves out addresses that were seen before, in upper or lower case. Otherwise two mails would
// go to one mailbox, and no event of a provider could tell them apart. The first spelling stays.
func (c *checker) addresses(field string, list []Mailbox, seen map[string]struct{}) []Address {
	if len(list) == 0 {
		return nil
	}
	as := make([]Address, 0, len(list))
	for i, b := range list {
		a := c.mailbox(field, i, b)
		key := FoldAddress(a.Email)
		if _, twice := seen[key]; twice {
			continue
		}
		seen[key] = struct{}{}
		as = append(as, a)
	}
	return slices.Clip(as)
}

func (c *checker) replyTo(list []Mailbox) []Address {
	if len(list) > c.lim.ReplyTo {
		c.add("reply_to", "too_many", fmt.Sprintf("reply_to takes at most %d addresses", c.lim.ReplyTo))
		return nil
	}
	return c.addresses("reply_to", list, make(map[string]struct{}, len(list)))
}
