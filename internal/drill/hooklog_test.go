//go:build drill

package drill

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/emulator"
)

// shot is a provider's request, to be fired again.
type shot struct {
	kind   string
	header http.Header
	body   []byte
}

// taken is a line of the hook log: a request of a provider that was answered 200.
type taken struct {
	Kind string `json:"kind"`
	Body []byte `json:"body"`
}

// hookLog is a proxy between the providers and the balancer. It writes each request that is answered 200 to disk, before the
// provider has the answer.
type hookLog struct {
	path string
	mu   sync.Mutex
	file *os.File
	ammo map[string][]shot // a few requests of each kind
}

const maxAmmo = 64 // requests of a kind

// logHooks has the providers report by way of a hook log.
func (r *rig) logHooks(t *testing.T) *hookLog {
	t.Helper()
	l := &hookLog{path: filepath.Join(r.dir, "hooks.jsonl"), ammo: map[string][]shot{}}
	var err error
	if l.file, err = os.Create(l.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.file.Close() })
	hooks := maps.Clone(r.hooks)
	for _, kind := range webKinds() {
		if _, ok := dialects()[kind]; !ok {
			t.Fatalf("table dialects (kinds_test.go) has no entry for the kind %s", kind)
		}
		to, err := url.Parse(r.hooks[kind]["url"])
		if err != nil {
			t.Fatal(err)
		}
		hooks[kind] = emulator.Hook{"url": serve(t, l.between(kind, to).ServeHTTP) + to.Path}
	}
	if err := r.emu.SetHooks(hooks); err != nil {
		t.Fatal(err)
	}
	return l
}

// between passes the requests of a kind on, as they are.
func (l *hookLog) between(kind string, to *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = to.Scheme, to.Host },
		// A balancer that finds nobody: the provider comes again.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(io.LimitReader(req.Body, 4<<20))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s := shot{kind, req.Header.Clone(), body}
		proxy.ServeHTTP(&answer{ResponseWriter: w, log: l, shot: s}, withBody(req, body))
	})
}

func withBody(req *http.Request, body []byte) *http.Request {
	req = req.Clone(req.Context())
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return req
}

// answer sees the status before the provider does.
type answer struct {
	http.ResponseWriter
	log  *hookLog
	shot shot
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if status == http.StatusOK {
		a.log.note(a.shot)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (l *hookLog) note(s shot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ammo[s.kind]) < maxAmmo {
		l.ammo[s.kind] = append(l.ammo[s.kind], s)
	}
	line, err := json.Marshal(taken{s.kind, s.body})
	if err != nil {
		panic(err) // bytes and a word
	}
	_, _ = l.file.Write(append(line, '\n')) // nobody checks a missing line; the drill counts them
}

// shots returns an example of each kind that was seen.
func (l *hookLog) shots() map[string][]shot {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string][]shot{}
	for kind, list := range l.ammo {
		all[kind] = append([]shot(nil), list...)
	}
	return all
}

// fact is one event of one of our messages, with the provider's name for it.
type fact struct{ kind, message, word string }

// facts reads a request.
func (k taken) facts() ([]fact, error) {
	var body any
	if err := json.Unmarshal(k.Body, &body); err != nil {
		return nil, err
	}
	events, several := body.([]any)
	if !several {
		events = []any{body}
	}
	var found []fact
	d := dialects()[k.Kind]
	for _, e := range events {
		message, word := dig(e, d.message), dig(e, d.word)
		if word == "" {
			return nil, fmt.Errorf("no event in %s", k.Body)
		}
		found = append(found, fact{k.Kind, message, word})
	}
	return found, nil
}

// factsSQL lists the facts that are not among the events of their message from that account.
const factsSQL = `
SELECT DISTINCT f.kind || ' ' || f.word || ' of ' || f.message
FROM unnest($1::text[], $2::text[], $3::text[]) AS f(kind, message, word)
WHERE NOT EXISTS (
    SELECT 1 FROM event e JOIN account a ON a.id = e.account_id
    WHERE e.message_id = f.message::uuid AND a.name = f.kind AND e.name LIKE f.word || '%')`

// judgeHooks: each event that was answered 200 is stored with its message. Events without a message of ours are ignored.
func (r *rig) judgeHooks(t *testing.T, l *hookLog) {
	t.Helper()
	var kinds, messages, words []string
	readLines(t, l.path, func(k taken) {
		found, err := k.facts()
		if err != nil {
			t.Fatalf("request of %s: %v", k.Kind, err)
		}
		for _, f := range found {
			if f.message != "" {
				kinds, messages, words = append(kinds, f.kind), append(messages, f.message), append(words, f.word)
			}
		}
	})
	r.report.tally("events_answered_200", len(kinds))
	for _, kind := range webKinds() {
		if !slices.Contains(kinds, kind) {
			t.Errorf("events of %s that were answered 200 = 0: nothing is shown of it", kind)
		}
	}
	lost := complaints{what: "events lost that were answered 200"}
	eventually(t, 20*time.Second, func() bool { // those that came before their message was recorded find it a little later
		rows, err := r.rows.Query(t.Context(), factsSQL, kinds, messages, words)
		if err != nil {
			t.Fatal(err)
		}
		if lost.ids, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			t.Fatal(err)
		}
		return len(lost.ids) == 0
	})
	lost.fail(t)
}
