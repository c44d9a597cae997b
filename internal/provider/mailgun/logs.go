package mailgun

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

// The bounds of a search of the logs.
const (
	logItems = 100
	logPages = 10
	logAfter = 5 * time.Minute // after the call, when it can't be first heard of any more
)

// logQuery is the request of POST /v1/analytics/logs ("List logs").
type logQuery struct {
	Start      string    `json:"start"` // RFC 2822
	End        string    `json:"end"`
	Events     []string  `json:"events"`
	Filter     logFilter `json:"filter"`
	Pagination struct {
		Sort  string `json:"sort"`
		Limit int    `json:"limit"`
		Token string `json:"token,omitempty"`
	} `json:"pagination"`
}

type logFilter struct {
	And []logPredicate `json:"AND"`
}

type logPredicate struct {
	Attribute  string     `json:"attribute"`
	Comparator string     `json:"comparator"`
	Values     []logValue `json:"values"`
}

type logValue struct {
	Label string `json:"label"`
	Value string `json:"value"`
}

// logPage is an answer.
type logPage struct {
	Items      []json.RawMessage `json:"items"`
	Pagination struct {
		Next string `json:"next"`
	} `json:"pagination"`
}

// findInLogs reads the domain's log from the call on, because a filter by message is not documented there. Sure says that
// the log was read as far as the call could be in it.
func (c *Client) findInLogs(ctx context.Context, q *provider.Query) (found provider.Finding, sure bool, perr *provider.Error) {
	in := logQuery{
		Start: q.From.Add(-skew).UTC().Format(time.RFC1123Z), End: time.Now().UTC().Format(time.RFC1123Z),
		Events: []string{"accepted", "delivered", "failed", "rejected"},
		Filter: logFilter{[]logPredicate{{Attribute: "domain", Comparator: "=", Values: []logValue{{c.cfg.Domain, c.cfg.Domain}}}}},
	}
	in.Pagination.Sort, in.Pagination.Limit = "timestamp:asc", logItems
	for range logPages {
		var page logPage
		if perr := c.callJSON(ctx, http.MethodPost, strings.TrimSuffix(c.cfg.apiBase(), "/v3")+"/v1/analytics/logs", in, &page); perr != nil {
			return found, false, perr
		}
		if page.Items == nil {
			return found, false, &provider.Error{Class: provider.Misconfigured, Detail: "mailgun: not an answer of the logs API; check base_url"}
		}
		var last time.Time
		for i, raw := range page.Items {
			page.Items[i] = asEvent(raw)
			last = parse(page.Items[i])[0].At
		}
		collect(&found, q, page.Items)
		if page.Pagination.Next == "" || len(page.Items) == 0 {
			return found, true, nil
		}
		if !found.Found && last.After(q.To.Add(logAfter)) {
			return found, true, nil
		}
		in.Pagination.Token = page.Pagination.Next
	}
	return found, false, &provider.Error{
		Class: provider.Misconfigured, Detail: "mailgun: the logs API lists more events than are read, none of this call; nothing is proved by that",
	}
}

// asEvent gives a log item the timestamp of an event: here it is a date under another name.
func asEvent(raw json.RawMessage) json.RawMessage {
	var item map[string]json.RawMessage
	var date time.Time
	if json.Unmarshal(raw, &item) != nil || item["timestamp"] != nil || json.Unmarshal(item["@timestamp"], &date) != nil {
		return raw
	}
	item["timestamp"], _ = json.Marshal(float64(date.UnixMilli()) / 1000) //nolint:errchkjson // a number always encodes
	full, err := json.Marshal(item)
	if err != nil {
		return raw
	}
	return full
}
