package mailgun

import (
	"encoding/base64"
	"net/http"
	netmail "net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// page is the token of a place in a list of events: the number of events before it.
func page(offset int) string {
	return base64.RawURLEncoding.EncodeToString([]byte("offset:" + strconv.Itoa(offset)))
}

func parsePage(token string) (offset int, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	digits, found := strings.CutPrefix(string(raw), "offset:")
	if err != nil || !found {
		return 0, false
	}
	offset, err = strconv.Atoi(digits)
	return offset, err == nil && offset >= 0
}

// history lists the events of messages in order of time, if keep accepts them.
func history(found []*emulator.Found, keep func(*emulator.Event) bool) []emulator.Event {
	var all []emulator.Event
	for _, s := range found {
		for _, h := range s.Past {
			if keep(&h) {
				all = append(all, h)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b emulator.Event) int { return a.At.Compare(b.At) })
	return all
}

// cutPage cuts one page out of a list.
func cutPage(all []emulator.Event, offset, limit int) []emulator.Event {
	offset = min(offset, len(all))
	return all[offset:min(offset+limit, len(all))]
}

func within(t, from, to time.Time) bool { return !t.Before(from) && !t.After(to) }

// logs is the request of the page "List logs".
type logs struct {
	Start    string   `json:"start"`
	End      string   `json:"end"`
	Duration string   `json:"duration"`
	Events   []string `json:"events"`
	Filter   struct {
		AND []predicate `json:"AND"`
	} `json:"filter"`
	Pagination struct {
		Sort  string `json:"sort"`
		Token string `json:"token"`
		Limit int    `json:"limit"`
	} `json:"pagination"`
}

type predicate struct {
	Attribute  string `json:"attribute"`
	Comparator string `json:"comparator"`
	Values     []struct {
		Label string `json:"label"`
		Value string `json:"value"`
	} `json:"values"`
}

// holds compares one attribute. The documentation lists attributes only in examples; here are those of the event itself.
func (p *predicate) holds(h *emulator.Event, domain string) (holds, known bool) {
	var has string
	if !slices.Contains([]string{"=", "!=", "contains", "not contains"}, p.Comparator) {
		return false, false
	}
	switch p.Attribute {
	case "domain":
		has = domain
	case "recipient":
		has = h.To[0]
	case "recipient_domain":
		has = emulator.DomainOf(h.To[0])
	case "message_id", "message-id":
		has = h.Message.ProviderMessageID
	case "event":
		has, _ = nameOf(h.Type)
	default:
		return false, false
	}
	found := false
	for _, v := range p.Values {
		one := strings.EqualFold(v.Value, has)
		if strings.HasSuffix(p.Comparator, "contains") {
			one = strings.Contains(strings.ToLower(has), strings.ToLower(v.Value))
		}
		found = found || one
	}
	negated := p.Comparator == "!=" || p.Comparator == "not contains"
	return found != negated, true
}

// window reads start and end, or end and duration. The default is the last day.
func (in *logs) window(now time.Time) (from, to time.Time, ok bool) {
	from, to = now.AddDate(0, 0, -1), now
	var err error
	if in.End != "" {
		if to, err = netmail.ParseDate(in.End); err != nil {
			return from, to, false
		}
		to = to.Add(time.Second - time.Nanosecond) // it includes the whole second
	}
	if in.Start != "" {
		if from, err = netmail.ParseDate(in.Start); err != nil {
			return from, to, false
		}
	}
	if d := in.Duration; d != "" {
		n, err := strconv.Atoi(d[:len(d)-1])
		unit := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour, 'm': 30 * 24 * time.Hour}[d[len(d)-1]]
		if err != nil || unit == 0 {
			return from, to, false
		}
		from = to.Add(-time.Duration(n) * unit)
	}
	return from, to, true
}

// searchLogs answers POST /v1/analytics/logs.
func (a *api) searchLogs(_ *http.Request, body []byte) *emulator.Search {
	in := logs{}
	in.Pagination.Limit = 100
	bad := func(what string) *emulator.Search {
		return &emulator.Search{Refused: refuse(http.StatusBadRequest, what)}
	}
	if json.Unmarshal(body, &in) != nil {
		return bad("request body can't be parsed")
	}
	from, to, ok := in.window(a.host.Now())
	offset, paged := parsePage(in.Pagination.Token)
	switch {
	case !ok:
		return bad("start, end or duration is not valid")
	case in.Pagination.Token != "" && !paged:
		return bad("pagination token is not valid")
	case in.Pagination.Limit < 1 || in.Pagination.Limit > 1000:
		return bad("pagination limit must be between 1 and 1000")
	}
	domain := a.domain()
	probe := emulator.Event{Message: &emulator.Message{}, To: []string{""}, Type: emulator.Accepted}
	for i := range in.Filter.AND {
		if _, known := in.Filter.AND[i].holds(&probe, domain); !known {
			return bad("filter is not valid: " + in.Filter.AND[i].Attribute)
		}
	}
	keep := func(h *emulator.Event) bool {
		name, _ := nameOf(h.Type)
		if !within(h.At, from, to) || len(in.Events) > 0 && !slices.Contains(in.Events, name) {
			return false
		}
		return !slices.ContainsFunc(in.Filter.AND, func(p predicate) bool {
			holds, _ := p.holds(h, domain)
			return !holds
		})
	}
	return &emulator.Search{Match: a.overlaps(from, to), Show: func(found []*emulator.Found) *emulator.Reply {
		all := history(found, keep)
		if !strings.HasSuffix(in.Pagination.Sort, ":asc") {
			slices.Reverse(all)
		}
		return a.logsPage(&in, from, to, all, offset)
	}}
}

// overlaps excludes messages that can't have an event in the window.
func (a *api) overlaps(from, to time.Time) func(*emulator.Entry) bool {
	longest := a.host.Longest()
	return func(n *emulator.Entry) bool { return !n.At.After(to) && !n.At.Before(from.Add(-longest)) }
}

// logsPage answers with one page of log items, whose form differs slightly from that of a webhook.
func (a *api) logsPage(in *logs, from, to time.Time, all []emulator.Event, offset int) *emulator.Reply {
	items := []map[string]any{}
	for _, h := range cutPage(all, offset, in.Pagination.Limit) {
		m := record(&h)
		delete(m, "timestamp")
		m["@timestamp"] = h.At.UTC().Format("2006-01-02T15:04:05.000Z")
		m["domain"] = map[string]string{"name": a.domain()}
		m["account"] = map[string]string{"id": "emulator"}
		// Here the values are JSON in a string, as clients have found. In a webhook they are an object.
		vars, _ := json.Marshal(h.Message.Args, json.Deterministic(true)) //nolint:errcheck // strings always encode
		m["user-variables"] = string(vars)
		items = append(items, m)
	}
	next := ""
	if offset+len(items) < len(all) {
		next = page(offset + len(items))
	}
	pages := map[string]any{
		"next": next, "previous": "", "first": page(0), "last": page(max(len(all)-in.Pagination.Limit, 0)), "total": len(all),
	}
	if offset > 0 {
		pages["previous"] = page(max(offset-in.Pagination.Limit, 0))
	}
	return emulator.JSON(http.StatusOK, map[string]any{
		"start": from.Format(time.RFC1123Z), "end": to.Format(time.RFC1123Z), "items": items, "pagination": pages,
		"aggregates": map[string]any{},
	})
}

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

// eventsRange reads a range as the section "Time Range" says: from begin to end in that direction, or from begin on.
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

// moment reads epoch seconds, with or without a fraction, or a date of RFC 2822.
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

// eventsPage answers with one page of events and the URLs of its neighbours.
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
