package emulator

import (
	"cmp"
	"encoding/base64"
	"net/http"
	netmail "net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// mailgunPage is a place in a list of events: how many come before it.
func mailgunPage(offset int) string {
	return base64.RawURLEncoding.EncodeToString([]byte("offset:" + strconv.Itoa(offset)))
}

func parseMailgunPage(token string) (offset int, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	digits, found := strings.CutPrefix(string(raw), "offset:")
	if err != nil || !found {
		return 0, false
	}
	offset, err = strconv.Atoi(digits)
	return offset, err == nil && offset >= 0
}

// mailgunHistory lists the events of messages in order of time.
func mailgunHistory(found []*sight, keep func(*happening) bool) []happening {
	var all []happening
	for _, s := range found {
		for _, h := range s.past {
			if keep(&h) {
				all = append(all, h)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	return all
}

// page cuts one page out of a list.
func page(all []happening, offset, limit int) []happening {
	offset = min(offset, len(all))
	return all[offset:min(offset+limit, len(all))]
}

func within(t, from, to time.Time) bool { return !t.Before(from) && !t.After(to) }

// mailgunLogs is the request of the page "List logs".
type mailgunLogs struct {
	Start    string   `json:"start"`
	End      string   `json:"end"`
	Duration string   `json:"duration"`
	Events   []string `json:"events"`
	Filter   struct {
		AND []mailgunPredicate `json:"AND"`
	} `json:"filter"`
	Pagination struct {
		Sort  string `json:"sort"`
		Token string `json:"token"`
		Limit int    `json:"limit"`
	} `json:"pagination"`
}

type mailgunPredicate struct {
	Attribute  string `json:"attribute"`
	Comparator string `json:"comparator"`
	Values     []struct {
		Label string `json:"label"`
		Value string `json:"value"`
	} `json:"values"`
}

// holds compares one attribute. Which there are is documented by examples only; those of the event itself are here.
func (p *mailgunPredicate) holds(h *happening, domain string) (holds, known bool) {
	var has string
	if !slices.Contains([]string{"=", "!=", "contains", "not contains"}, p.Comparator) {
		return false, false
	}
	switch p.Attribute {
	case "domain":
		has = domain
	case "recipient":
		has = h.to[0]
	case "recipient_domain":
		has = domainOf(h.to[0])
	case "message_id", "message-id":
		has = h.of.ProviderMessageID
	case "event":
		has, _ = mailgunName(h.what)
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

// window reads start and end, or end and duration; without, the last day.
func (in *mailgunLogs) window(now time.Time) (from, to time.Time, ok bool) {
	from, to = now.AddDate(0, 0, -1), now
	var err error
	if in.End != "" {
		if to, err = netmail.ParseDate(in.End); err != nil {
			return from, to, false
		}
		to = to.Add(time.Second - time.Nanosecond) // the second it names is in it
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
func (g mailgun) searchLogs(_ *http.Request, body []byte) *search {
	in := mailgunLogs{}
	in.Pagination.Limit = 100
	refuse := func(what string) *search { return &search{refused: mailgunFailure(http.StatusBadRequest, what)} }
	if json.Unmarshal(body, &in) != nil {
		return refuse("request body can't be parsed")
	}
	from, to, ok := in.window(g.e.now())
	offset, paged := parseMailgunPage(in.Pagination.Token)
	switch {
	case !ok:
		return refuse("start, end or duration is not valid")
	case in.Pagination.Token != "" && !paged:
		return refuse("pagination token is not valid")
	case in.Pagination.Limit < 1 || in.Pagination.Limit > 1000:
		return refuse("pagination limit must be between 1 and 1000")
	}
	domain := g.e.opt.Credentials.MailgunDomain
	probe := happening{of: &letter{}, to: []string{""}, what: wasAccepted}
	for i := range in.Filter.AND {
		if _, known := in.Filter.AND[i].holds(&probe, domain); !known {
			return refuse("filter is not valid: " + in.Filter.AND[i].Attribute)
		}
	}
	keep := func(h *happening) bool {
		name, _ := mailgunName(h.what)
		if !within(h.at, from, to) || len(in.Events) > 0 && !slices.Contains(in.Events, name) {
			return false
		}
		return !slices.ContainsFunc(in.Filter.AND, func(p mailgunPredicate) bool {
			holds, _ := p.holds(h, domain)
			return !holds
		})
	}
	return &search{match: g.overlaps(from, to), show: func(found []*sight) *reply {
		all := mailgunHistory(found, keep)
		if !strings.HasSuffix(in.Pagination.Sort, ":asc") {
			slices.Reverse(all)
		}
		return g.logsPage(&in, from, to, all, offset)
	}}
}

// overlaps rules out messages that can't have an event in the window.
func (g mailgun) overlaps(from, to time.Time) func(*Entry) bool {
	longest := g.e.timing.deferFor + 10*g.e.timing.pace
	return func(n *Entry) bool { return !n.At.After(to) && !n.At.Before(from.Add(-longest)) }
}

func (g mailgun) logsPage(in *mailgunLogs, from, to time.Time, all []happening, offset int) *reply {
	items := []map[string]any{}
	for _, h := range page(all, offset, in.Pagination.Limit) {
		m := mailgunEvent(&h)
		delete(m, "timestamp")
		m["@timestamp"] = h.at.UTC().Format("2006-01-02T15:04:05.000Z")
		m["domain"] = map[string]string{"name": g.e.opt.Credentials.MailgunDomain}
		m["account"] = map[string]string{"id": "emulator"}
		// Here the values are JSON in a string, as clients have found; in a webhook they are an object.
		vars, _ := json.Marshal(orNone(h.of.args), json.Deterministic(true)) //nolint:errcheck // strings always encode
		m["user-variables"] = string(vars)
		items = append(items, m)
	}
	next := ""
	if offset+len(items) < len(all) {
		next = mailgunPage(offset + len(items))
	}
	pages := map[string]any{
		"next": next, "previous": "", "first": mailgunPage(0), "last": mailgunPage(max(len(all)-in.Pagination.Limit, 0)), "total": len(all),
	}
	if offset > 0 {
		pages["previous"] = mailgunPage(max(offset-in.Pagination.Limit, 0))
	}
	return jsonReply(http.StatusOK, map[string]any{
		"start": from.Format(time.RFC1123Z), "end": to.Format(time.RFC1123Z), "items": items, "pagination": pages,
		"aggregates": map[string]any{},
	})
}
