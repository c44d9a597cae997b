package emulator

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// sendGridQuery is a query of the page "Filter All Messages" of the Email Logs API, taken apart. Conditions are joined by
// AND; there is neither OR nor nesting.
type sendGridQuery struct {
	equal map[string]string   // sg_message_id, subject, to_email, reason
	in    map[string][]string // status, categories
	times []timeCondition     // of sg_message_id_created_at
}

type timeCondition struct {
	operator string
	at       time.Time
}

// The three forms of a condition. A string is in single or double quotes; a quote within is doubled.
var (
	sendGridEqual = regexp.MustCompile(`^(sg_message_id|subject|to_email|reason)\s*=\s*('(?:[^']|'')*'|"(?:[^"]|"")*")`)
	sendGridIn    = regexp.MustCompile(`^(status|categories)\s+IN\s*\(\s*((?:'[^']*'|"[^"]*")(?:\s*,\s*(?:'[^']*'|"[^"]*"))*)\s*\)`)
	sendGridTime  = regexp.MustCompile(`^sg_message_id_created_at\s*(>=|<=|>|<)\s*TIMESTAMP\s+(?:"([^"]*)"|'([^']*)')`)
	sendGridAnd   = regexp.MustCompile(`^\s+AND\s+`)
)

// parseSendGridQuery reads a query; false is a query that SendGrid would refuse.
func parseSendGridQuery(s string) (*sendGridQuery, bool) {
	q := &sendGridQuery{equal: map[string]string{}, in: map[string][]string{}}
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
		and := sendGridAnd.FindString(s)
		if and == "" || and == s {
			return nil, false
		}
		s = s[len(and):]
	}
	return q, true
}

// condition reads one condition from the front and returns its length, 0 if there is none.
func (q *sendGridQuery) condition(s string) int {
	if m := sendGridEqual.FindStringSubmatch(s); m != nil {
		q.equal[m[1]] = unquote(m[2])
		return len(m[0])
	}
	if m := sendGridIn.FindStringSubmatch(s); m != nil {
		for v := range strings.SplitSeq(m[2], ",") {
			q.in[m[1]] = append(q.in[m[1]], unquote(strings.TrimSpace(v)))
		}
		return len(m[0])
	}
	if m := sendGridTime.FindStringSubmatch(s); m != nil {
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

// match compares what the ledger knows; the status is compared when it is known.
func (q *sendGridQuery) match(n *Entry) bool {
	if v, ok := q.equal["subject"]; ok && v != n.Subject {
		return false
	}
	if v, ok := q.equal["sg_message_id"]; ok && v != n.ProviderMessageID && !strings.HasPrefix(v, n.ProviderMessageID+".") {
		return false
	}
	if len(q.in["categories"]) > 0 { // the ledger has none
		return false
	}
	return !slices.ContainsFunc(q.times, func(c timeCondition) bool { return !c.holds(n.At) })
}

// sendGridStatus sums up what happened as the schema EmailLogsMessageStatus says.
func sendGridStatus(past []happening) string {
	status := "processed"
	for _, h := range past {
		switch h.what {
		case wasDelivered, wasOpened, wasClicked:
			status = "delivered"
		case wasDeferred:
			status = "deferred"
		case wasBounced:
			status = "bounced"
		case wasSoftBounced:
			status = "blocked"
		case wasDropped:
			status = "dropped"
		case wasAccepted, wasComplained, wasDeactivated:
		}
	}
	return status
}

// searchLogs answers POST /v3/logs: one line for each recipient.
func (g sendGrid) searchLogs(_ *http.Request, body []byte) *search {
	in := struct {
		Query string `json:"query"`
		Limit int    `json:"limit"`
	}{Limit: 10}
	if json.Unmarshal(body, &in) != nil || in.Limit < 1 || in.Limit > 1000 {
		return &search{refused: sendGridFailure(http.StatusBadRequest, "limit", "limit must be between 1 and 1000")}
	}
	q, ok := parseSendGridQuery(in.Query)
	if !ok {
		return &search{refused: sendGridFailure(http.StatusBadRequest, "query", "invalid query")}
	}
	return &search{recipient: q.equal["to_email"], match: q.match, show: func(found []*sight) *reply {
		lines := []map[string]any{}
		slices.Reverse(found) // the newest first
		for _, s := range found {
			for _, to := range s.To {
				if want := q.equal["to_email"]; want != "" && !strings.EqualFold(want, to) {
					continue
				}
				status := sendGridStatus(s.of(to))
				if len(lines) == in.Limit || len(q.in["status"]) > 0 && !slices.Contains(q.in["status"], status) {
					continue
				}
				lines = append(lines, map[string]any{
					"from_email": s.From, "sg_message_id": sendGridMessageID(s.letter, to), "subject": s.Subject, "to_email": to,
					"status": status, "sg_message_id_created_at": s.At.UTC().Format(time.RFC3339),
				})
			}
		}
		return jsonReply(http.StatusOK, map[string]any{"messages": lines})
	}}
}

// oneLog answers GET /v3/logs/{sg_message_id}.
func (g sendGrid) oneLog(r *http.Request, _ []byte) *search {
	id := r.PathValue("id")
	match := func(n *Entry) bool {
		return id == n.ProviderMessageID || strings.HasPrefix(id, n.ProviderMessageID+".")
	}
	return &search{match: match, show: func(found []*sight) *reply {
		for _, s := range found {
			for _, to := range s.To {
				if id == s.ProviderMessageID || id == sendGridMessageID(s.letter, to) {
					return g.logDetails(s, to)
				}
			}
		}
		return sendGridFailure(http.StatusNotFound, "", "message not found")
	}}
}

func (sendGrid) logDetails(s *sight, to string) *reply {
	events := []map[string]any{}
	for _, h := range s.of(to) {
		e := sendGridEvent(&h)
		for name := range s.args { // here they have an object of their own
			delete(e, name)
		}
		e["custom_args"] = orNone(s.args)
		events = append(events, e)
	}
	return jsonReply(http.StatusOK, map[string]any{
		"from_email": s.From, "sg_message_id": sendGridMessageID(s.letter, to), "subject": s.Subject, "to_email": to,
		"status": sendGridStatus(s.of(to)), "api_key_id": "emulator", "client_ip": "127.0.0.1", "custom_args": orNone(s.args),
		"category": []string{}, "events": events, "outbound_ip": sendingIP, "outbound_ip_type": "dedicated",
	})
}
