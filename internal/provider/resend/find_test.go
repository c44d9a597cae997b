package resend_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// listing is a fake list of sent emails, the newest first, n of them.
type listing struct {
	n    int
	item func(i int) string // of the list, without braces
	tags func(i int) string // of one email
	seen int                // pages asked for
}

func (l *listing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if id, ok := strings.CutPrefix(r.URL.Path, "/emails/e-"); ok {
		i, _ := strconv.Atoi(id)
		reply(w, 200, fmt.Sprintf(`{"id":"e-%d",%s,"tags":%s}`, i, l.item(i), l.tags(i)))
		return
	}
	l.seen++
	from := 0
	if after, ok := strings.CutPrefix(r.URL.Query().Get("after"), "e-"); ok {
		from, _ = strconv.Atoi(after)
		from++
	}
	to := min(from+100, l.n)
	var items []string
	for i := from; i < to; i++ {
		items = append(items, fmt.Sprintf(`{"id":"e-%d",%s}`, i, l.item(i)))
	}
	reply(w, 200, fmt.Sprintf(`{"object":"list","has_more":%t,"data":[%s]}`, to < l.n, strings.Join(items, ",")))
}

// email is one of the shop's to Ann, i seconds before noon.
func email(i int) string {
	return fmt.Sprintf(`"from":"Shop <shop@example.com>","to":["ann@example.org"],"created_at":%q`,
		noon().Add(-time.Duration(i)*time.Second).UTC().Format("2006-01-02 15:04:05.999999-07"))
}

func query(id string, from time.Duration) *provider.Query {
	ours, err := mail.ParseID(id)
	if err != nil {
		panic(err)
	}
	return &provider.Query{MessageID: ours, Sender: "shop@example.com", Recipients: []string{"ann@example.org"}, From: noon().Add(-from), To: noon().Add(time.Minute)}
}

func TestFindGoesByTimeAndTags(t *testing.T) {
	t.Parallel()
	const ours = "0199c0de-0000-7000-8000-000000000001"
	tagged := func(at int) func(int) string {
		return func(i int) string {
			if i == at {
				return `[{"name":"gw_msg","value":"` + ours + `"}]`
			}
			return `[{"name":"gw_msg","value":"0199c0de-0000-7000-8000-000000000009"}]`
		}
	}
	other := func(int) string { return `"from":"a@example.com","to":["ann@example.org"]` }
	for name, tc := range map[string]struct {
		list  *listing
		from  time.Duration
		found string
		class provider.Class // of the error
		pages int
	}{
		"on the first page":       {&listing{n: 3, item: email, tags: tagged(1)}, time.Hour, "e-1", "", 1},
		"on the second page":      {&listing{n: 150, item: email, tags: tagged(120)}, time.Hour, "e-120", "", 2},
		"not there":               {&listing{n: 3, item: email, tags: tagged(-1)}, time.Hour, "", "", 1},
		"nothing was sent":        {&listing{n: 0}, time.Hour, "", "", 1},
		"it ends at the time":     {&listing{n: 1000, item: email, tags: tagged(-1)}, 90 * time.Second, "", "", 1},
		"one that cannot be told": {&listing{n: 3, item: email, tags: func(int) string { return "null" }}, time.Hour, "", provider.Misconfigured, 1},
		"others of no concern":    {&listing{n: 3, item: other}, time.Hour, "", "", 1},
		"more than can be read":   {&listing{n: 5000, item: other}, time.Hour, "", provider.Misconfigured, 20},
	} {
		srv := httptest.NewServer(tc.list)
		got, err := newClient(t, srv.URL).Find(t.Context(), query(ours, tc.from))
		srv.Close()
		var perr *provider.Error
		if tc.class != "" && (!errors.As(err, &perr) || perr.Class != tc.class) || tc.class == "" && err != nil {
			t.Errorf("%s: %v, want class %q", name, err, tc.class)
		}
		if got.Found != (tc.found != "") || got.ProviderMessageID != tc.found || tc.list.seen != tc.pages {
			t.Errorf("%s: %+v after %d pages, want %q after %d", name, got, tc.list.seen, tc.found, tc.pages)
		}
	}
}

func TestFindDoesNotBelieveOthers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status int
		body   string
		want   provider.Class
	}{
		"a key that may only send": {401, fault("restricted_api_key", "only send"), provider.Misconfigured},
		"too many requests":        {429, fault("rate_limit_exceeded", ""), provider.Throttled},
		"an outage":                {500, fault("internal_server_error", ""), provider.Transient},
		"another server":           {200, "<html>", provider.Transient},
		"another API":              {200, `{"items":[]}`, provider.Misconfigured},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reply(w, tc.status, tc.body) }))
		got, err := newClient(t, srv.URL).Find(t.Context(), query("0199c0de-0000-7000-8000-000000000001", time.Hour))
		srv.Close()
		var perr *provider.Error
		if got.Found || !errors.As(err, &perr) || perr.Class != tc.want {
			t.Errorf("%s: %+v, %v; want %s", name, got, err, tc.want)
		}
	}
}
