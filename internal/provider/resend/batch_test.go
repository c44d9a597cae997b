package resend_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/resend"
	"github.com/sendgate/sendgate/internal/seal"
)

// some are n messages without attachments.
func some(n int) []*provider.Send {
	var all []*provider.Send
	for i := range n {
		all = append(all, providertest.Numbered(i))
	}
	return all
}

// batch sends messages to a server with this answer, and returns the bodies of the requests.
func batch(t *testing.T, status int, header http.Header, answer string, all []*provider.Send) (outcomes []provider.Outcome, bodies []string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(body))
		for name, values := range header {
			w.Header()[name] = values
		}
		reply(w, status, answer)
	}))
	defer srv.Close()
	c := newClient(t, srv.URL)
	defer c.Close()
	return c.SendBatch(t.Context(), all), bodies
}

func TestEachResultOfABatchIsItsMessages(t *testing.T) {
	t.Parallel()
	const (
		acc, rej, mis = provider.Accepted, provider.Rejected, provider.Misconfigured
		unc, tra, thr = provider.Uncertain, provider.Transient, provider.Throttled
	)
	ids := func(names ...string) string {
		var data []string
		for _, name := range names {
			data = append(data, `{"id":"`+name+`"}`)
		}
		return `"data":[` + strings.Join(data, ",") + `]`
	}
	errs := func(pairs ...string) string {
		var list []string
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, fmt.Sprintf(`{"index":%s,"message":%q}`, pairs[i], pairs[i+1]))
		}
		return `"errors":[` + strings.Join(list, ",") + `]`
	}
	for name, tc := range map[string]struct {
		status int
		answer string
		want   []provider.Class
		ids    []string
	}{
		"all are taken":                   {200, `{` + ids("a", "b", "c") + `}`, []provider.Class{acc, acc, acc}, []string{"a", "b", "c"}},
		"all are taken, with no error":    {200, `{` + ids("a", "b", "c") + `,"errors":[]}`, []provider.Class{acc, acc, acc}, []string{"a", "b", "c"}},
		"the first is refused":            {200, `{` + ids("b", "c") + `,` + errs("0", "Missing `subject` field.") + `}`, []provider.Class{rej, acc, acc}, []string{"", "b", "c"}},
		"the middle one is refused":       {200, `{` + ids("a", "c") + `,` + errs("1", "Invalid `to` field.") + `}`, []provider.Class{acc, rej, acc}, []string{"a", "", "c"}},
		"two are refused, out of order":   {200, `{` + ids("b") + `,` + errs("2", "Invalid `to` field.", "0", "") + `}`, []provider.Class{rej, acc, rej}, []string{"", "b", ""}},
		"all are refused":                 {200, `{"data":[],` + errs("0", "x", "1", "x", "2", "x") + `}`, []provider.Class{rej, rej, rej}, nil},
		"all are refused, without data":   {200, `{` + errs("0", "x", "1", "x", "2", "x") + `}`, []provider.Class{rej, rej, rej}, nil},
		"a domain of one is not verified": {200, `{` + ids("a", "b") + `,` + errs("2", "The example.com domain is not verified.") + `}`, []provider.Class{acc, acc, mis}, []string{"a", "b", ""}},

		"an id is missing":          {200, `{` + ids("a", "b") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an id too many":            {200, `{` + ids("a", "b", "c", "d") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an empty id":               {200, `{` + ids("a", "", "c") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an id twice":               {200, `{` + ids("a", "b", "a") + `}`, []provider.Class{unc, unc, unc}, nil},
		"data that is null":         {200, `{"data":[{"id":"a"},null,{"id":"c"}]}`, []provider.Class{unc, unc, unc}, nil},
		"an error too many":         {200, `{` + ids("a", "b", "c") + `,` + errs("1", "x") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an error twice":            {200, `{` + ids("a") + `,` + errs("1", "x", "1", "x") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an error behind the end":   {200, `{` + ids("a", "b") + `,` + errs("3", "x") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an error before the start": {200, `{` + ids("a", "b") + `,` + errs("-1", "x") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an error of a fraction":    {200, `{` + ids("a", "b") + `,` + errs("1.5", "x") + `}`, []provider.Class{unc, unc, unc}, nil},
		"an error without an index": {200, `{` + ids("a", "b") + `,"errors":[{"message":"x"}]}`, []provider.Class{unc, unc, unc}, nil},
		"an error that is null":     {200, `{` + ids("a", "b") + `,"errors":[null]}`, []provider.Class{unc, unc, unc}, nil},
		"an answer to a single one": {200, `{"id":"a"}`, []provider.Class{unc, unc, unc}, nil},
		"an error with a 200":       {200, fault("rate_limit_exceeded", "no"), []provider.Class{unc, unc, unc}, nil},
		"an error with a 202":       {202, fault("validation_error", "no"), []provider.Class{unc, unc, unc}, nil},
		"acceptances with a 202":    {202, `{` + ids("a", "b", "c") + `}`, []provider.Class{unc, unc, unc}, nil},
		"acceptances with a 500":    {500, `{` + ids("a", "b", "c") + `}`, []provider.Class{unc, unc, unc}, nil},
		"a list":                    {200, `[{"id":"a"},{"id":"b"},{"id":"c"}]`, []provider.Class{unc, unc, unc}, nil},
		"an empty body":             {200, ``, []provider.Class{unc, unc, unc}, nil},
		"somebody else's page":      {200, `<html>Welcome</html>`, []provider.Class{unc, unc, unc}, nil},
		"JSON that is cut":          {200, `{` + ids("a", "b", "c"), []provider.Class{unc, unc, unc}, nil},

		"the batch is refused for one": {422, fault("validation_error", "Invalid `to` field."), []provider.Class{tra, tra, tra}, nil},
		"the batch is too large":       {413, "", []provider.Class{tra, tra, tra}, nil},
		"a domain is not verified":     {403, fault("validation_error", "The example.com domain is not verified."), []provider.Class{tra, tra, tra}, nil},
		"the key is wrong":             {401, fault("missing_api_key", "Missing API Key"), []provider.Class{mis, mis, mis}, nil},
		"the key may not do this":      {422, fault("invalid_access", "no"), []provider.Class{mis, mis, mis}, nil},
		"too many requests":            {429, fault("rate_limit_exceeded", "Too many requests"), []provider.Class{thr, thr, thr}, nil},
		"the quota is used up":         {429, fault("daily_quota_exceeded", "no"), []provider.Class{thr, thr, thr}, nil},
		"it breaks":                    {500, fault("internal_server_error", "An unexpected error occurred."), []provider.Class{unc, unc, unc}, nil},
		"a gateway in front breaks":    {502, "<html>Bad Gateway</html>", []provider.Class{unc, unc, unc}, nil},
		"it is in progress":            {409, fault("concurrent_idempotent_requests", "no"), []provider.Class{unc, unc, unc}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outcomes, bodies := batch(t, tc.status, nil, tc.answer, some(3))
			if len(bodies) != 1 {
				t.Errorf("%d requests, want one", len(bodies))
			}
			for i, want := range tc.want {
				providertest.CheckClass(t, outcomes[i].Err, want)
				if outcomes[i].LeftOut {
					t.Errorf("message %d was in the call, and is reported as left out", i)
				}
				if id := outcomes[i].Receipt.ProviderMessageID; tc.ids != nil && id != tc.ids[i] {
					t.Errorf("message %d has the id %q, want %q", i, id, tc.ids[i])
				}
				if want == tra {
					if perr := providertest.AsError(t, outcomes[i].Err); !perr.Shared || strings.Contains(perr.Detail, "`") {
						t.Errorf("message %d: %+v, want it shared, without words about another's message", i, perr)
					}
				}
			}
		})
	}
}

func TestAThrottledBatchSaysHowLongToWait(t *testing.T) {
	t.Parallel()
	outcomes, _ := batch(t, 429, http.Header{"Retry-After": {"7"}}, fault("rate_limit_exceeded", "no"), some(2))
	for _, o := range outcomes {
		if perr := providertest.AsError(t, o.Err); perr.RetryAfter != 7*time.Second {
			t.Errorf("wait = %s, want 7 s", perr.RetryAfter)
		}
	}
}

func TestAnErrorOfABatchTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	outcomes, _ := batch(t, 200, nil, `{"data":[{"id":"a"}],"errors":[{"index":1,"message":"Invalid `+"`from`"+` field. `+testKey+`"}]}`, some(2))
	perr := providertest.AsError(t, outcomes[1].Err)
	if !strings.Contains(perr.Detail, "`from`") || strings.Contains(perr.Detail, testKey) || perr.Code != "validation_error" || !perr.Suspect || perr.Scope != provider.ScopeAddress {
		t.Errorf("error = %+v, want Resend's words without the key, and a doubt about the address of From", perr)
	}
}

// Messages with attachments are not taken with others, and are told to go alone.
func TestAMessageWithAttachmentsIsLeftOut(t *testing.T) {
	t.Parallel()
	all := some(3)
	all[1].Message.Attachments = []mail.Attachment{{Filename: "a.txt", Content: []byte("hi"), ContentType: "text/plain"}}
	outcomes, bodies := batch(t, 200, nil, `{"data":[{"id":"a"},{"id":"c"}]}`, all)
	perr := providertest.AsError(t, outcomes[1].Err)
	if perr.Class != provider.Transient || !perr.Shared || !outcomes[1].LeftOut {
		t.Errorf("outcome = %+v, want it left out, to go alone", outcomes[1])
	}
	if outcomes[0].Receipt.ProviderMessageID != "a" || outcomes[2].Receipt.ProviderMessageID != "c" || len(emailsOf([]byte(bodies[0]))) != 2 {
		t.Errorf("outcomes = %+v of %s, want the others taken", outcomes, bodies[0])
	}
	for _, s := range all {
		s.Message.Attachments = all[1].Message.Attachments
	}
	if _, bodies := batch(t, 200, nil, `{}`, all); len(bodies) != 0 {
		t.Errorf("%d requests without an email, want none", len(bodies))
	}
	if !newClient(t, "http://127.0.0.1:1").Batch().NoAttachments {
		t.Error("the engine is not told")
	}
}

// A message of which only Bcc recipients are left goes to one of them. The others have another call, whatever becomes of this one.
func TestSeveralBccKeepTheirPlaceInABatch(t *testing.T) {
	t.Parallel()
	for answer, status := range map[string]int{`{"data":[{"id":"a"},{"id":"b"}]}`: 200, "{}": 500} {
		all := some(2)
		all[1].To, all[1].Bcc = nil, []mail.Address{{Email: "dave@example.org"}, {Email: "erin@example.org"}}
		outcomes, bodies := batch(t, status, nil, answer, all)
		if emails := emailsOf([]byte(bodies[0])); !slices.Equal(emails[1].To, []string{"dave@example.org"}) || strings.Contains(bodies[0], "erin") {
			t.Errorf("request = %s, want the first Bcc only", bodies[0])
		}
		refused := outcomes[1].Receipt.Refused
		if status != 200 {
			refused = providertest.AsError(t, outcomes[1].Err).Refused
			if first := providertest.AsError(t, outcomes[0].Err); len(first.Refused) != 0 {
				t.Errorf("the other message got the recipients %+v", first.Refused)
			}
		}
		if len(refused) != 1 || refused[0].Email != "erin@example.org" || !refused[0].Full {
			t.Errorf("status %d: refused = %+v, want erin, for want of room", status, refused)
		}
	}
}

func TestTheSizeOfABatchIsASetting(t *testing.T) {
	t.Parallel()
	secrets := map[string]seal.Secret{"api_key": seal.NewSecret(testKey)}
	for settings, want := range map[string]int{`{}`: 100, `{"batch_size":1}`: 1, `{"batch_size":100}`: 100, `{"batch_size":101}`: 0, `{"batch_size":-1}`: 0} {
		cfg, err := resend.ParseConfig([]byte(settings), secrets)
		if (err == nil) != (want > 0) {
			t.Errorf("%s: %v", settings, err)
			continue
		}
		if err != nil {
			continue
		}
		c, err := resend.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Batch().Max; got != want {
			t.Errorf("%s: %d messages in a call, want %d", settings, got, want)
		}
	}
}
