package emulator

import (
	"net/http"
	netmail "net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// searchEvents answers GET /v3/{domain}/events, which is deprecated and documents a filter by message-id.
func (g mailgun) searchEvents(r *http.Request, _ []byte) *search {
	q := r.URL.Query()
	refuse := func(what string) *search { return &search{refused: mailgunFailure(http.StatusBadRequest, what)} }
	begin, end, ascending, ok := g.eventsRange(q)
	limit, offset := 100, 0
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 300 {
			return refuse("limit must be between 1 and 300")
		}
		limit = n
	}
	if v := q.Get("page"); v != "" {
		var paged bool
		if offset, paged = parseMailgunPage(v); !paged {
			return refuse("page is not valid")
		}
	}
	if !ok {
		return refuse("begin, end and ascending do not make a range")
	}
	keep := func(h *happening) bool {
		name, severity := mailgunName(h.what)
		return within(h.at, begin, end) && (q.Get("event") == "" || slices.Contains(strings.Split(q.Get("event"), " OR "), name)) &&
			(q.Get("severity") == "" || q.Get("severity") == severity) &&
			(q.Get("recipient") == "" || strings.EqualFold(q.Get("recipient"), h.to[0]))
	}
	id := bareMessageID(q.Get("message-id"))
	match := func(n *Entry) bool {
		return g.overlaps(begin, end)(n) && (q.Get("message-id") == "" || n.ProviderMessageID == id) &&
			(q.Get("subject") == "" || n.Subject == q.Get("subject")) && (q.Get("from") == "" || strings.EqualFold(n.From, q.Get("from")))
	}
	return &search{recipient: q.Get("recipient"), match: match, show: func(found []*sight) *reply {
		all := mailgunHistory(found, keep)
		if !ascending {
			slices.Reverse(all)
		}
		return g.eventsPage(r, all, offset, limit)
	}}
}

// eventsRange reads a range as the section "Time Range" says: from begin to end in their order, or from begin on.
func (g mailgun) eventsRange(q url.Values) (begin, end time.Time, ascending, ok bool) {
	now := g.e.now()
	begin, end = now, now.AddDate(0, 0, -30)
	ascending = q.Get("ascending") == "yes"
	var okBegin, okEnd bool
	if begin, okBegin = mailgunMoment(q.Get("begin"), begin); !okBegin {
		return begin, end, false, false
	}
	if q.Get("end") == "" {
		if ascending {
			end = now
		}
	} else if end, okEnd = mailgunMoment(q.Get("end"), end); !okEnd {
		return begin, end, false, false
	} else {
		ascending = !end.Before(begin)
	}
	if end.Before(begin) {
		begin, end = end, begin
	}
	return begin, end, ascending, true
}

// mailgunMoment reads epoch seconds, with a fraction or without, or a date of RFC 2822.
func mailgunMoment(s string, absent time.Time) (time.Time, bool) {
	if s == "" {
		return absent, true
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f > 0 && f < 1e11 {
		return time.UnixMicro(int64(f * 1e6)), true
	}
	t, err := netmail.ParseDate(s)
	return t, err == nil
}

func (g mailgun) eventsPage(r *http.Request, all []happening, offset, limit int) *reply {
	items := []map[string]any{}
	for _, h := range page(all, offset, limit) {
		items = append(items, mailgunEvent(&h))
	}
	at := func(offset int) string {
		q := r.URL.Query()
		q.Set("page", mailgunPage(max(offset, 0)))
		return g.e.URL() + r.URL.Path + "?" + q.Encode()
	}
	return jsonReply(http.StatusOK, map[string]any{"items": items, "paging": map[string]string{
		"next": at(offset + len(items)), "previous": at(offset - limit), "first": at(0), "last": at(len(all) - limit),
	}})
}
