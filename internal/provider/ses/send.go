package ses

import (
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
)

// Caps of the API reference: Message, MessageHeader, MessageTag, Attachment. Lengths are in bytes of ASCII.
const (
	maxHeaders     = 15
	maxHeaderName  = 126
	maxHeaderValue = 995
	maxHeader      = 996 // name and value together
	maxTag         = 256
	maxTags        = 50
	maxFilename    = 255
	maxContentType = 78
	maxContentID   = 78
)

// input builds the request.
func (c *Client) input(s *provider.Send) (*sesv2.SendEmailInput, *provider.Error) {
	content := simple(s.Message)
	if partial(s) || !fitsSimple(s.Message) {
		var refusal *provider.Error
		if content, refusal = raw(s.Message); refusal != nil {
			return nil, refusal
		}
	}
	in := &sesv2.SendEmailInput{
		FromEmailAddress: aws.String(address(s.Message.From)),
		Destination: &types.Destination{
			ToAddresses: addresses(s.To), CcAddresses: addresses(s.Cc), BccAddresses: addresses(s.Bcc),
		},
		Content:   content,
		EmailTags: tagList(s.Message),
	}
	if content.Simple != nil {
		in.ReplyToAddresses = addresses(s.Message.ReplyTo)
	}
	if c.config.ConfigurationSet != "" {
		in.ConfigurationSetName = aws.String(c.config.ConfigurationSet)
	}
	return in, nil
}

// simple is the content of ordinary mail, of which SES makes the MIME.
func simple(m *mail.Message) *types.EmailContent {
	return &types.EmailContent{Simple: &types.Message{
		Subject: text(m.Subject), Body: body(m), Headers: headerList(m.Headers), Attachments: attachmentList(m.Attachments),
	}}
}

func body(m *mail.Message) *types.Body {
	b := &types.Body{}
	if m.HTML != "" {
		b.Html = text(m.HTML)
	}
	if m.Text != "" || m.HTML == "" {
		b.Text = text(m.Text)
	}
	return b
}

func text(s string) *types.Content {
	return &types.Content{Data: aws.String(s), Charset: aws.String("UTF-8")}
}

func addresses(list []mail.Address) []string {
	var out []string
	for _, a := range list {
		out = append(out, address(a))
	}
	return out
}

// address gives "Name" <local@domain>. SES takes ASCII only, so other names become encoded words, and so do those that
// look like some.
func address(a mail.Address) string {
	switch {
	case a.Name == "":
		return a.Email
	case isASCII(a.Name) && !mime.LooksEncoded(a.Name):
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Name) + `" <` + a.Email + ">"
	default:
		return mime.Words(a.Name) + " <" + a.Email + ">"
	}
}

// tagList puts our id first and then the metadata, by name, as far as both name and value fit the charset of message
// tags and there is room. The rest of the metadata is kept by us and not passed on, nor are the message's tags.
func tagList(m *mail.Message) []types.MessageTag {
	tags := []types.MessageTag{tag(provider.MessageKey, m.ID.String())}
	for _, name := range slices.Sorted(maps.Keys(m.Metadata)) {
		value := m.Metadata[name]
		if len(tags) == maxTags {
			break
		}
		if name != provider.MessageKey && isTag(name) && isTag(value) {
			tags = append(tags, tag(name, value))
		}
	}
	return tags
}

func tag(name, value string) types.MessageTag {
	return types.MessageTag{Name: aws.String(name), Value: aws.String(value)}
}

// isTag reports whether s may be the name or the value of a message tag.
func isTag(s string) bool {
	return s != "" && len(s) <= maxTag && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
}

func headerList(headers []mail.Header) []types.MessageHeader {
	var list []types.MessageHeader
	for _, h := range headers {
		list = append(list, types.MessageHeader{Name: aws.String(h.Name), Value: aws.String(mime.Value(h.Name, h.Value))})
	}
	return list
}

func attachmentList(files []mail.Attachment) []types.Attachment {
	var list []types.Attachment
	for _, f := range files {
		list = append(list, attachment(f))
	}
	return list
}

func attachment(f mail.Attachment) types.Attachment {
	a := types.Attachment{
		FileName:                aws.String(f.Filename),
		RawContent:              f.Content,
		ContentDisposition:      types.AttachmentContentDispositionAttachment,
		ContentTransferEncoding: types.AttachmentContentTransferEncodingBase64,
	}
	if f.Filename == "" {
		a.FileName = aws.String("attachment") // SES insists on a name
	}
	if f.ContentType != "" {
		a.ContentType = aws.String(f.ContentType)
	}
	if f.ContentID != "" {
		a.ContentDisposition, a.ContentId = types.AttachmentContentDispositionInline, aws.String(f.ContentID)
	}
	return a
}

func refuse(code, detail string) *provider.Error {
	return &provider.Error{Class: provider.Rejected, Code: code, Detail: provider.Cut(detail), Elsewhere: true}
}

// isASCII reports whether s is printable ASCII.
func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
