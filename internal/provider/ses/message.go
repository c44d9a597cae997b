package ses

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
)

// partial reports whether the attempt leaves out some recipients of the message's To and Cc, because they are settled.
// Content.Simple would show only the rest, or nobody at all to a Bcc, so such an attempt goes as Content.Raw.
func partial(s *provider.Send) bool {
	return len(s.To) != len(s.Message.To) || len(s.Cc) != len(s.Message.Cc)
}

// fitsSimple reports whether Content.Simple can carry the message. SES has narrower caps there, no place for an invitation, and
// accepts no empty value and no TAB in a header (API reference, Message, MessageHeader, Attachment). It may also leave a text
// that looks encoded as it is. Content.Raw has none of these caps.
func fitsSimple(m *mail.Message) bool {
	if m.Calendar != nil || len(m.Headers) > maxHeaders || mime.LooksEncoded(m.Subject) || strings.Contains(m.Subject, "\t") {
		return false
	}
	for _, h := range headerList(m.Headers) {
		name, value := *h.Name, *h.Value
		if value == "" || !isASCII(value) || len(name) > maxHeaderName || len(value) > maxHeaderValue || len(name)+len(value) > maxHeader {
			return false
		}
	}
	for _, f := range m.Attachments {
		if len(f.Filename) > maxFilename || len(f.ContentType) > maxContentType || len(f.ContentID) > maxContentID || mime.LooksEncoded(f.Filename) {
			return false
		}
	}
	return true
}

// raw builds the whole message. Its envelope is the Destination, which has priority over the header fields (API reference,
// RawMessage).
func raw(m *mail.Message) (*types.EmailContent, *provider.Error) {
	data, err := mime.Build(m)
	if err != nil {
		return nil, &provider.Error{Class: provider.Rejected, Code: "mime", Detail: provider.Cut(err.Error())}
	}
	return &types.EmailContent{Raw: &types.RawMessage{Data: data}}, nil
}
