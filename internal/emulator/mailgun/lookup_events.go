package mailgun

import (
	"net/http"
	netmail "net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// searchEvents answers GET /v3/{domain}/events, which is deprecated and documents a filter by message-id.
func (a *api) searchEvents(r *http.Request, _ []byte) *emulator.Search {
	q := r.URL.Query()
	bad := func(what string) *emulator.Search {
		return &emulator.Search{Refused: refuse(http.StatusBadRequest, what)}
	}
	begin, end, ascending, ok := a.eventsRange(q)
	limit, offset := 100, 0
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 300 {
			return bad("limit must be between 1 and 300")
		}
		limit = n
	}
	if v := q.Get("page"); v != "" {
		var paged bool
		if offset, paged = parsePage(v); !paged {
			return bad("page is not valid")
		}
	}
	if !ok {
		return bad("begin, end and ascending do not make a range")
	}
	keep := func(h *emulator.Event) bool {
		name, severity := nameOf(h.Type)
		return within(h.At, begin, end) && (q.Get("event") == "" || slices.Contains(strings.Split(q.Get("event"), " OR "), name)) &&
			(q.Get("severity") == "" || q.Get("severity") == severity) &&
			(q.Get("recipient") == "" || strings.EqualFold(q.Get("recipient"), h.To[0]))
	}
	id := emulator.BareMessageID(q.Get("message-id"))
	match := func(n *emulator.Entry) bool {
		return a.overlaps(begin, end)(n) && (q.Get("message-id") == "" || n.ProviderMessageID == id) &&
			(q.Get("subject") == "" || n.Subject == q.Get("subject")) && (q.Get("from") == "" || strings.EqualFold(n.From, q.Get("from")))
	}
	return &emulator.Search{Recipient: q.Get("recipient"), Match: match, Show: func(found []*emulator.Found) *emulator.Reply {
		all := history(found, keep)
		if !ascending {
			slices.Reverse(all)
		}
		return a.eventsPage(r, all, offset, limit)
	}}
}

// eventsRange reads a range as the section "Time Range" says: from begin to end in their order, or from begin on.
func (a *api) eventsRange(q url.Values) (begin, end time.Time, ascending, ok bool) {
	now := a.host.Now()
	begin, end = now, now.AddDate(0, 0, -30)
	ascending = q.Get("ascending") == "yes"
	var okBegin, okEnd bool
	if begin, okBegin = moment(q.Get("begin"), begin); !okBegin {
		return begin, end, false, false
	}
	if q.Get("end") == "" {
		if ascending {
			end = now
		}
	} else if end, okEnd = moment(q.Get("end"), end); !okEnd {
		return begin, end, false, false
	} else {
		ascending = !end.Before(begin)
	}
	if end.Before(begin) {
		begin, end = end, begin
	}
	return begin, end, ascending, true
}

// moment reads epoch seconds, with a fraction or without, or a date of RFC 2822.
func moment(s string, absent time.Time) (time.Time, bool) {
	if s == "" {
		return absent, true
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f > 0 && f < 1e11 {
		return time.UnixMicro(int64(f * 1e6)), true
	}
	t, err := netmail.ParseDate(s)
	return t, err == nil
}

func (a *api) eventsPage(r *http.Request, all []emulator.Event, offset, limit int) *emulator.Reply {
	items := []map[string]any{}
	for _, h := range cutPage(all, offset, limit) {
		items = append(items, record(&h))
	}
	at := func(offset int) string {
		q := r.URL.Query()
		q.Set("page", page(max(offset, 0)))
		return a.host.Root() + r.URL.Path + "?" + q.Encode()
	}
	return emulator.JSON(http.StatusOK, map[string]any{"items": items, "paging": map[string]string{
		"next": at(offset + len(items)), "previous": at(offset - limit), "first": at(0), "last": at(len(all) - limit),
	}})
}
