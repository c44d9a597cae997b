package sendgrid

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// query is a parsed query of the page "Filter All Messages" of the Email Logs API. Its conditions are joined by AND; there is
// neither OR nor nesting.
type query struct {
	equal map[string]string   // sg_message_id, subject, to_email, reason
	in    map[string][]string // status, categories
	times []timeCondition     // of sg_message_id_created_at
}

type timeCondition struct {
	operator string
	at       time.Time
}

// The three forms of a condition. A string is in single or double quotes; a quote inside is doubled.
var (
	equalForm = regexp.MustCompile(`^(sg_message_id|subject|to_email|reason)\s*=\s*('(?:[^']|'')*'|"(?:[^"]|"")*")`)
	inForm    = regexp.MustCompile(`^(status|categories)\s+IN\s*\(\s*((?:'[^']*'|"[^"]*")(?:\s*,\s*(?:'[^']*'|"[^"]*"))*)\s*\)`)
	timeForm  = regexp.MustCompile(`^sg_message_id_created_at\s*(>=|<=|>|<)\s*TIMESTAMP\s+(?:"([^"]*)"|'([^']*)')`)
	andForm   = regexp.MustCompile(`^\s+AND\s+`)
)

// parseQuery reads a query. It returns false if SendGrid would refuse the query.
func parseQuery(s string) (*query, bool) {
	q := &query{equal: map[string]string{}, in: map[string][]string{}}
	s = strings.TrimSpace(s)
	for s != "" {
		n := q.condition(s)
		if n == 0 {
			return nil, false
		}
		s = s[n:]
		if s == "" {
			return q, true
		}
		and := andForm.FindString(s)
		if and == "" || and == s {
			return nil, false
		}
		s = s[len(and):]
	}
	return q, true
}

// condition reads one condition from the start of s and returns its length, or 0 if there is none.
func (q *query) condition(s string) int {
	if m := equalForm.FindStringSubmatch(s); m != nil {
		q.equal[m[1]] = unquote(m[2])
		return len(m[0])
	}
	if m := inForm.FindStringSubmatch(s); m != nil {
		for v := range strings.SplitSeq(m[2], ",") {
			q.in[m[1]] = append(q.in[m[1]], unquote(strings.TrimSpace(v)))
		}
		return len(m[0])
	}
	if m := timeForm.FindStringSubmatch(s); m != nil {
		at, err := time.Parse(time.RFC3339Nano, m[2]+m[3])
		if err != nil {
			return 0
		}
		q.times = append(q.times, timeCondition{m[1], at})
		return len(m[0])
	}
	return 0
}

func unquote(s string) string {
	mark := s[:1]
	return strings.ReplaceAll(s[1:len(s)-1], mark+mark, mark)
}

func (c timeCondition) holds(t time.Time) bool {
	switch c.operator {
	case ">":
		return t.After(c.at)
	case "<":
		return t.Before(c.at)
	case ">=":
		return !t.Before(c.at)
	}
	return !t.After(c.at)
}

// match compares the values that the ledger has. The status is compared later.
func (q *query) match(n *emulator.Entry) bool {
	if v, ok := q.equal["subject"]; ok && v != n.Subject {
		return false
	}
	if v, ok := q.equal["sg_message_id"]; ok && v != n.ProviderMessageID && !strings.HasPrefix(v, n.ProviderMessageID+".") {
		return false
	}
	if len(q.in["categories"]) > 0 { // the ledger has no categories
		return false
	}
	return !slices.ContainsFunc(q.times, func(c timeCondition) bool { return !c.holds(n.At) })
}

// statuses are those of the schema EmailLogsMessageStatus, by the last event that changes the status.
var statuses = map[emulator.EventType]string{
	emulator.Delivered:   "delivered",
	emulator.Opened:      "delivered",
	emulator.Clicked:     "delivered",
	emulator.Deferred:    "deferred",
	emulator.Bounced:     "bounced",
	emulator.SoftBounced: "blocked",
	emulator.Dropped:     "dropped",
}

func statusOf(past []emulator.Event) string {
	status := "processed"
	for _, h := range past {
		status = cmp.Or(statuses[h.Type], status)
	}
	return status
}

// searchLogs answers POST /v3/logs: one line for each recipient.
func (a *api) searchLogs(_ *http.Request, body []byte) *emulator.Search {
	in := struct {
		Query string `json:"query"`
		Limit int    `json:"limit"`
	}{Limit: 10}
	if json.Unmarshal(body, &in) != nil || in.Limit < 1 || in.Limit > 1000 {
		return &emulator.Search{Refused: refuse(http.StatusBadRequest, "limit", "limit must be between 1 and 1000")}
	}
	q, ok := parseQuery(in.Query)
	if !ok {
		return &emulator.Search{Refused: refuse(http.StatusBadRequest, "query", "invalid query")}
	}
	return &emulator.Search{Recipient: q.equal["to_email"], Match: q.match, Show: func(found []*emulator.Found) *emulator.Reply {
		lines := []map[string]any{}
		slices.Reverse(found) // the newest first
		for _, s := range found {
			for _, to := range s.To {
				if want := q.equal["to_email"]; want != "" && !strings.EqualFold(want, to) {
					continue
				}
				status := statusOf(s.Of(to))
				if len(lines) == in.Limit || len(q.in["status"]) > 0 && !slices.Contains(q.in["status"], status) {
					continue
				}
				lines = append(lines, map[string]any{
					"from_email": s.From, "sg_message_id": messageID(s.Message, to), "subject": s.Subject, "to_email": to,
					"status": status, "sg_message_id_created_at": s.At.UTC().Format(time.RFC3339),
				})
			}
		}
		return emulator.JSON(http.StatusOK, map[string]any{"messages": lines})
	}}
}

// oneLog answers GET /v3/logs/{sg_message_id}.
func (a *api) oneLog(r *http.Request, _ []byte) *emulator.Search {
	id := r.PathValue("id")
	match := func(n *emulator.Entry) bool {
		return id == n.ProviderMessageID || strings.HasPrefix(id, n.ProviderMessageID+".")
	}
	return &emulator.Search{Match: match, Show: func(found []*emulator.Found) *emulator.Reply {
		for _, s := range found {
			for _, to := range s.To {
				if id == s.ProviderMessageID || id == messageID(s.Message, to) {
					return a.logDetails(s, to)
				}
			}
		}
		return refuse(http.StatusNotFound, "", "message not found")
	}}
}

// logDetails answers with one message to one recipient and its events.
func (*api) logDetails(s *emulator.Found, to string) *emulator.Reply {
	events := []map[string]any{}
	for _, h := range s.Of(to) {
		e := record(&h)
		for name := range s.Args { // here the custom arguments have an object of their own
			delete(e, name)
		}
		e["custom_args"] = s.Args
		events = append(events, e)
	}
	return emulator.JSON(http.StatusOK, map[string]any{
		"from_email": s.From, "sg_message_id": messageID(s.Message, to), "subject": s.Subject, "to_email": to,
		"status": statusOf(s.Of(to)), "api_key_id": "emulator", "client_ip": "127.0.0.1", "custom_args": s.Args,
		"category": []string{}, "events": events, "outbound_ip": emulator.SendingIP, "outbound_ip_type": "dedicated",
	})
}
