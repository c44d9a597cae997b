package ses

import (
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
)

// partial reports whether the attempt leaves out some of those whom the message shows in To and Cc, because they are
// settled. Content.Simple would show the rest only, or nobody at all to a Bcc, so such an attempt goes as Content.Raw.
func partial(s *provider.Send) bool {
	return len(s.To) != len(s.Message.To) || len(s.Cc) != len(s.Message.Cc)
}

// raw builds the whole message. Its envelope is the Destination, which rules over the header fields (API reference,
// RawMessage).
func raw(m *mail.Message) (*types.EmailContent, *provider.Error) {
	data, err := mime.Build(m)
	if err != nil {
		return nil, &provider.Error{Class: provider.Rejected, Code: "mime", Detail: provider.Cut(err.Error())}
	}
	return &types.EmailContent{Raw: &types.RawMessage{Data: data}}, nil
}
