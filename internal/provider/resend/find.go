package resend

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// The list of sent emails is read back to the time of the call, newest first, up to this many pages of this size. If a team has
// sent more since then, there is no look-up, which is better than a wrong one.
const (
	pageSize = 100
	maxPages = 20
)

// sent is an entry of GET /emails, and the answer of GET /emails/{id}, which has tags.
type sent struct {
	ID        string          `json:"id"`
	From      string          `json:"from"`
	To        []string        `json:"to"`
	Cc        []string        `json:"cc"`
	Bcc       []string        `json:"bcc"`
	CreatedAt string          `json:"created_at"`
	LastEvent string          `json:"last_event"`
	Tags      json.RawMessage `json:"tags"`
}

// list is a page of GET /emails.
type list struct {
	HasMore bool   `json:"has_more"`
	Data    []sent `json:"data"`
}

// Find implements provider.Finder. Resend has no search. The list has sender, recipients and time; each email that matches is
// then read, because its tags hold our id. A match without such tags proves nothing.
func (c *Client) Find(ctx context.Context, q *provider.Query) (provider.Finding, error) {
	after, doubtful := "", false
	for range maxPages {
		var page list
		params := url.Values{"limit": {strconv.Itoa(pageSize)}}
		if after != "" {
			params.Set("after", after)
		}
		if err := c.call(ctx, http.MethodGet, "/emails?"+params.Encode(), nil, &page); err != nil {
			return provider.Finding{}, esphttp.LookupError(err)
		}
		if page.Data == nil { // other JSON, which must not prove that there is no message
			return provider.Finding{}, unclear("not an answer of Resend's list of emails; check base_url")
		}
		for _, m := range page.Data {
			if m.ID == "" || !m.fits(q) {
				continue
			}
			found, told, err := c.look(ctx, m.ID, q.MessageID)
			if err != nil || found.Found {
				return found, err
			}
			doubtful = doubtful || !told
		}
		if !page.HasMore || len(page.Data) == 0 || page.past(q) {
			if doubtful {
				return provider.Finding{}, unclear("an email with the same sender and recipients has no tags to tell it by")
			}
			return provider.Finding{}, nil
		}
		after = page.Data[len(page.Data)-1].ID
	}
	return provider.Finding{}, unclear("too many emails were sent since the call")
}

// past reports whether the page ends before the time of the call.
func (l list) past(q *provider.Query) bool {
	last := l.Data[len(l.Data)-1]
	at := moment(last.CreatedAt)
	return !at.IsZero() && at.Before(q.From)
}

// fits reports whether an email may be the message that the query is about.
func (m *sent) fits(q *provider.Query) bool {
	at := moment(m.CreatedAt)
	if !at.IsZero() && (at.Before(q.From) || at.After(q.To)) || !strings.EqualFold(address(m.From), q.Sender) {
		return false
	}
	theirs := []string{}
	for _, a := range slices.Concat(m.To, m.Cc, m.Bcc) {
		theirs = append(theirs, strings.ToLower(address(a)))
	}
	return !slices.ContainsFunc(q.Recipients, func(r string) bool { return !slices.Contains(theirs, strings.ToLower(r)) })
}

// look reads one email. The second result reports whether the email has an id of ours that tells it apart.
func (c *Client) look(ctx context.Context, id string, ours mail.ID) (provider.Finding, bool, error) {
	var m sent
	if err := c.call(ctx, http.MethodGet, "/emails/"+url.PathEscape(id), nil, &m); err != nil {
		return provider.Finding{}, false, esphttp.LookupError(err)
	}
	got := messageID(m.Tags)
	if got != ours {
		return provider.Finding{}, !got.IsZero(), nil
	}
	return provider.Finding{Found: true, ProviderMessageID: provider.Cut(id)}, true, nil
}

// unclear is the error of a look-up that proves nothing: the deadline decides.
func unclear(why string) error {
	return &provider.Error{Class: provider.Misconfigured, Detail: "resend: " + why}
}
