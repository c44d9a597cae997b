package deliver

import (
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/unsub"
)

// Unsubscriber makes the header fields of one-click unsubscribe links.
type Unsubscriber interface {
	Headers(t unsub.Token) []mail.Header
}

// isBulk reports whether mail of a stream is of the kind that people subscribe to.
func isBulk(stream string) bool { return stream == "bulk" || strings.HasPrefix(stream, "bulk-") }

// withUnsubscribe adds one-click unsubscribe header fields (RFC 8058) to bulk mail for one recipient. With several
// recipients a link could not show who followed it. A List-Unsubscribe of the sender's own stays.
func (e *Engine) withUnsubscribe(m *mail.Message, open []mail.Recipient) *mail.Message {
	if e.Unsubscribe == nil || !isBulk(m.Stream) || len(open) != 1 || hasHeader(m, "List-Unsubscribe") {
		return m
	}
	ours := e.Unsubscribe.Headers(unsub.Token{Tenant: m.Tenant, Stream: m.Stream, Message: m.ID, Email: open[0].Address.Email})
	added := *m
	added.Headers = slices.DeleteFunc(slices.Clone(m.Headers), func(h mail.Header) bool {
		return hasHeader(&mail.Message{Headers: ours}, h.Name) // a List-Unsubscribe-Post alone, which means nothing
	})
	added.Headers = append(added.Headers, ours...)
	return &added
}

func hasHeader(m *mail.Message, name string) bool {
	return slices.ContainsFunc(m.Headers, func(h mail.Header) bool { return strings.EqualFold(h.Name, name) })
}
