package httpapi

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sendgate/sendgate/internal/mail"
)

// sendRequest is the body of a send as it is read. It accepts more than api.SendRequest writes: the short forms of
// addresses, one address in place of a list, and null for any field that may be absent.
type sendRequest struct {
	From        mailbox           `json:"from"`
	To          mailboxes         `json:"to"`
	Cc          mailboxes         `json:"cc"`
	Bcc         mailboxes         `json:"bcc"`
	ReplyTo     mailboxes         `json:"reply_to"`
	Subject     string            `json:"subject"`
	Text        string            `json:"text"`
	HTML        string            `json:"html"`
	Headers     map[string]string `json:"headers"`
	Attachments []attachment      `json:"attachments"`
	Calendar    *calendar         `json:"calendar"`
	Tags        []string          `json:"tags"`
	Metadata    map[string]string `json:"metadata"`
	Stream      string            `json:"stream"`
	SendAt      string            `json:"send_at"`
	ExpiresAt   string            `json:"expires_at"`
	OnAmbiguous string            `json:"on_ambiguous"`
	Account     string            `json:"account"`
}

type attachment struct {
	Filename    string  `json:"filename"`
	ContentType string  `json:"content_type"`
	Content     content `json:"content"`
	ContentID   string  `json:"content_id"`
}

type calendar struct {
	Method  string `json:"method"`
	Content string `json:"content"`
}

// draft converts the request to the type of package mail.
func (q *sendRequest) draft() *mail.Draft {
	d := &mail.Draft{
		From: mail.Mailbox(q.From), To: q.To, Cc: q.Cc, Bcc: q.Bcc, ReplyTo: q.ReplyTo,
		Subject: q.Subject, Text: q.Text, HTML: q.HTML, Tags: q.Tags, Metadata: q.Metadata, Stream: q.Stream,
		SendAt: q.SendAt, ExpiresAt: q.ExpiresAt, OnAmbiguous: q.OnAmbiguous, Account: q.Account,
	}
	for name, value := range q.Headers {
		d.Headers = append(d.Headers, mail.Header{Name: name, Value: value})
	}
	slices.SortFunc(d.Headers, func(a, b mail.Header) int { return cmp.Compare(a.Name, b.Name) })
	if q.Calendar != nil {
		d.Calendar = &mail.Calendar{Method: q.Calendar.Method, Content: q.Calendar.Content}
	}
	for _, a := range q.Attachments {
		d.Attachments = append(d.Attachments, mail.File{
			Filename: a.Filename, ContentType: a.ContentType, ContentID: a.ContentID, Content: mail.Base64(a.Content),
		})
	}
	return d
}

// mailbox is {"email","name"} or one string. null stands for an absent value and gives an empty mailbox.
type mailbox mail.Mailbox

const errWantMailbox = wantError(`an address: a string, or an object with email and name`)

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (m *mailbox) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case jsontext.KindString:
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		*m = mailbox{Text: token.String()}
		return nil
	case jsontext.KindBeginObject, jsontext.KindNull:
		var object struct {
			Email string `json:"email"`
			Name  string `json:"name"`
		}
		if err := json.UnmarshalDecode(dec, &object); err != nil {
			return err
		}
		*m = mailbox{Email: object.Email, Name: object.Name}
		return nil
	default:
		return skip(dec, errWantMailbox)
	}
}

// mailboxes is a list of mailboxes, or a single one in place of a list.
type mailboxes []mail.Mailbox

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (m *mailboxes) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case jsontext.KindNull:
		*m = nil
		return dec.SkipValue()
	case jsontext.KindString, jsontext.KindBeginObject:
		var one mailbox
		if err := one.UnmarshalJSONFrom(dec); err != nil {
			return err
		}
		*m = mailboxes{mail.Mailbox(one)}
		return nil
	case jsontext.KindBeginArray:
		var all []mailbox
		if err := json.UnmarshalDecode(dec, &all); err != nil {
			return err
		}
		*m = views(all, func(one *mailbox) mail.Mailbox { return mail.Mailbox(*one) })
		return nil
	default:
		return skip(dec, errWantMailbox+", or a list of them")
	}
}

// content is a file in Base64. It is decoded from the body without a copy of the text.
type content mail.Base64

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *content) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case jsontext.KindNull:
		return dec.SkipValue()
	case jsontext.KindString:
	default:
		return skip(dec, "a string in Base64")
	}
	raw, err := dec.ReadValue()
	if err != nil {
		return err
	}
	text := raw[1 : len(raw)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		if text, err = jsontext.AppendUnquote(nil, raw); err != nil {
			return err
		}
	}
	*c = content(mail.DecodeBase64(text))
	return nil
}

// skip reads past a value of the wrong type, so that the error names the position of that value.
func skip(dec *jsontext.Decoder, want wantError) error {
	if err := dec.SkipValue(); err != nil {
		return err
	}
	return &json.SemanticError{JSONPointer: dec.StackPointer(), Err: want}
}
