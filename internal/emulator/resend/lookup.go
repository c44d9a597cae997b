package resend

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/emulator"
)

// The page sizes of "Pagination".
const (
	defaultPage = 20
	maxPage     = 100
)

// page reads limit, after and before.
type page struct {
	limit         int
	after, before string
}

func pageOf(r *http.Request) (page, *emulator.Reply) {
	q := r.URL.Query()
	p := page{limit: defaultPage, after: q.Get("after"), before: q.Get("before")}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			return p, refuse(http.StatusUnprocessableEntity, "validation_error", "The pagination limit must be between 1 and 100.")
		}
		p.limit = n
	}
	if p.after != "" && p.before != "" {
		return p, refuse(http.StatusUnprocessableEntity, "validation_error", "The `after` and `before` parameters go one without the other.")
	}
	return p, nil
}

// cut selects the page from a list by its ids, and reports whether there is more in its direction.
func (p page) cut(ids []string) (from, to int, more bool) {
	if p.before != "" {
		to = max(slices.Index(ids, p.before), 0)
		from = max(to-p.limit, 0)
		return from, to, from > 0
	}
	if p.after != "" {
		from = slices.Index(ids, p.after) + 1
	}
	to = min(from+p.limit, len(ids))
	return from, to, to < len(ids)
}

func listed(more bool, data any) *emulator.Reply {
	return emulator.JSON(http.StatusOK, map[string]any{"object": "list", "has_more": more, "data": data})
}

// list answers GET /emails, the newest first. Its entries have no tags.
func (*api) list(r *http.Request, _ []byte) *emulator.Search {
	p, refused := pageOf(r)
	if refused != nil {
		return &emulator.Search{Refused: refused}
	}
	return &emulator.Search{Match: func(*emulator.Entry) bool { return true }, Show: func(found []*emulator.Found) *emulator.Reply {
		slices.Reverse(found)
		ids := make([]string, len(found))
		for i, f := range found {
			ids[i] = f.ProviderMessageID
		}
		from, to, more := p.cut(ids)
		data := []map[string]any{}
		for _, f := range found[from:to] {
			data = append(data, sent(f))
		}
		return listed(more, data)
	}}
}

// retrieve answers GET /emails/{id}.
func (*api) retrieve(r *http.Request, _ []byte) *emulator.Search {
	id := r.PathValue("id")
	return &emulator.Search{Match: func(n *emulator.Entry) bool { return n.ProviderMessageID == id }, Show: func(found []*emulator.Found) *emulator.Reply {
		if len(found) == 0 {
			return refuse(http.StatusNotFound, "not_found", "Email not found")
		}
		m := sent(found[0])
		tags := []map[string]string{}
		for name, value := range found[0].Args {
			tags = append(tags, map[string]string{"name": name, "value": value})
		}
		m["object"], m["html"], m["text"], m["tags"] = "email", nil, nil, tags
		return emulator.JSON(http.StatusOK, m)
	}}
}

// sent shows an email. The ledger does not distinguish To from Cc and Bcc.
func sent(f *emulator.Found) map[string]any {
	last := "sent"
	for _, v := range f.Past {
		if word := words[v.Type]; word != "" {
			last = strings.TrimPrefix(word, "email.")
		}
	}
	return map[string]any{
		"id": f.ProviderMessageID, "to": f.To, "from": f.From, "created_at": f.At.UTC().Format("2006-01-02 15:04:05.999999-07"),
		"subject": f.Subject, "cc": []string{}, "bcc": []string{}, "reply_to": []string{}, "last_event": last, "scheduled_at": nil,
	}
}
