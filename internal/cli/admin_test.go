package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const poolBefore = `{"name":"default","overflow":"spill","version":4,"accounts":[{"account":"sendgrid","weight":50},{"account":"ses","weight":50}]}`

func TestPoolsSetChangesOnlyWhatItSawAndShowsShares(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/pools/default": {200, map[string]string{"ETag": `"4"`}, poolBefore},
		"PUT /admin/v1/pools/default": {200, nil, `{"name":"default","overflow":"wait","version":5,"accounts":[{"account":"postmark","weight":30},{"account":"ses","weight":70}]}`},
	})
	o := w.run("pools", "set", "default", "ses=70", "postmark=30", "--remove", "sendgrid", "--overflow", "wait")
	put := w.last("PUT", "/admin/v1/pools/default")
	if want := `{"overflow":"wait","accounts":[{"account":"ses","weight":70},{"account":"postmark","weight":30}]}`; put.body != want || put.header.Get("If-Match") != `"4"` {
		t.Errorf("PUT %s with If-Match %s\nwant %s with \"4\"", put.body, put.header.Get("If-Match"), want)
	}
	if put.auth != "Bearer sg_admin" {
		t.Errorf("authorization %q, want the admin key", put.auth)
	}
	want := []string{
		"ACCOUNT WEIGHT SHARE WAS SHARE", "postmark 30 30.0% - -", "ses 70 70.0% 50 50.0%", "sendgrid removed - 50 50.0%", "overflow wait spill",
	}
	if diff := cmp.Diff(want, fields(o.out)); diff != "" || o.code != 0 {
		t.Errorf("code %d, output (-want +got)\n%s", o.code, diff)
	}
}

// fields squeezes the columns of a table.
func fields(out string) []string {
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

func TestPoolsSetKeepsWhatIsNotNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/pools/default": {200, nil, poolBefore}, "PUT /admin/v1/pools/default": {200, nil, poolBefore},
	})
	w.run("pools", "set", "default", "sendgrid=0").want(t, 0, "", "")
	if got, want := w.last("PUT", "/admin/v1/pools/default").body,
		`{"overflow":"spill","accounts":[{"account":"sendgrid","weight":0},{"account":"ses","weight":50}]}`; got != want {
		t.Errorf("PUT %s\nwant %s", got, want)
	}
	w.run("pools", "set", "default", "--remove", "mailgun").want(t, 1, "", "mailgun is not in pool default")
}

func TestPoolsSetTellsWhenSomebodyElseWasFaster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/pools/default": {200, nil, poolBefore},
		"PUT /admin/v1/pools/default": {412, nil, `{"title":"Stale","status":412,"code":"stale"}`},
	})
	w.run("pools", "set", "default", "ses=1").want(t, 1, "", "Somebody else changed it meanwhile")
}

func TestPoolsListAndCreate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/pools": {200, nil, `{"data":[` + poolBefore + `,{"name":"empty","overflow":"wait","accounts":[]}]}`}, "POST /admin/v1/pools": {201, nil, poolBefore},
	})
	o := w.run("pools", "list")
	o.want(t, 0, "50.0%", "")
	o.want(t, 0, "(none)", "")
	w.run("pools", "create", "bulk", "ses=1", "--overflow", "wait").want(t, 0, "default", "")
	if got, want := w.last("POST", "/admin/v1/pools").body, `{"name":"bulk","overflow":"wait","accounts":[{"account":"ses","weight":1}]}`; got != want {
		t.Errorf("POST %s\nwant %s", got, want)
	}
}

const accountJSON = `{"name":"ses-eu","kind":"ses","settings":{"region":"eu-west-1"},"secrets":["access_key_id"],"capabilities":{"max_bytes":40000000,"max_tags":0,"smtputf8":false,"forbidden_extensions":["exe","bat"]},"concurrency":20,` +
	`"limits":[{"n":14,"per":"1s","unit":"requests"},{"n":50000,"per":"24h0m0s","unit":"recipients"}],"state":"parked",` +
	`"parked":[{"reason":"403 SignatureDoesNotMatch","since":"2026-01-31T12:00:00Z"}]}`

func TestSecretsNeverComeFromTheCommandLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	o := w.run("providers", "add", "sg", "--kind", "sendgrid", "--secret", "api_key=SG.canary")
	o.want(t, 2, "", "visible to every user")
	if strings.Contains(o.err+o.out, "canary") {
		t.Error("the secret was printed")
	}
	w.run("providers", "add", "sg", "--kind", "sendgrid", "--secret", "api_key").want(t, 2, "", "no terminal to ask on")
	w.run("providers", "add", "sg", "--kind", "sendgrid", "--secret", "SG.canary").want(t, 2, "", "--secret wants")
	w.run("providers", "add", "sg", "--kind", "sendgrid", "--secret", "api_key=env:NOT_SET").want(t, 1, "", "NOT_SET is not set")
	w.run("providers", "add", "sg", "--kind", "sendgrid", "--secret", "api_key=@nowhere").want(t, 1, "", "no such file")
	if len(w.calls) > 0 {
		t.Errorf("%d calls were made", len(w.calls))
	}
}

func TestProvidersAddReadsSecretsAndSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"POST /admin/v1/accounts": {201, nil, accountJSON}})
	w.file("key", "from-file\n")
	w.env = append(w.env, "SECRET_VAR=from-env")
	o := w.run("providers", "add", "ses-eu", "--kind", "ses", "--set", "region=eu-west-1", "--set", "port:=587", "--set", "a=b=c", "--concurrency", "5",
		"--secret", "access_key_id=@key", "--secret", "secret_access_key=env:SECRET_VAR", "--limit", "14/1s/requests", "--limit", "200/1s/recipients")
	o.want(t, 0, "sendgate pools set default ses-eu=1", "")
	want := `{"name":"ses-eu","kind":"ses","settings":{"a":"b=c","port":587,"region":"eu-west-1"},` +
		`"secrets":{"access_key_id":"from-file","secret_access_key":"from-env"},"concurrency":5,` +
		`"limits":[{"n":14,"per":"1s","unit":"requests"},{"n":200,"per":"1s","unit":"recipients"}]}`
	if got := w.last("POST", "/admin/v1/accounts").body; got != want {
		t.Errorf("POST %s\nwant %s", got, want)
	}
	if strings.Contains(o.out+o.err, "from-") {
		t.Error("a secret was printed")
	}
}

func TestProvidersChangeMergesSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET /admin/v1/accounts/ses-eu": {200, nil, accountJSON}, "PATCH /admin/v1/accounts/ses-eu": {200, nil, accountJSON}})
	w.run("providers", "change", "ses-eu", "--set", "configuration_set=main").want(t, 0, "403 SignatureDoesNotMatch", "")
	if got, want := w.last("PATCH", "/admin/v1/accounts/ses-eu").body, `{"settings":{"configuration_set":"main","region":"eu-west-1"}}`; got != want {
		t.Errorf("PATCH %s\nwant %s", got, want)
	}
	w.run("providers", "change", "ses-eu").want(t, 2, "", "nothing to change")
	w.run("providers", "change", "ses-eu", "--set", "port:=x").want(t, 2, "", "wants JSON")
	w.run("providers", "change", "ses-eu", "--set", "port").want(t, 2, "", "KEY=VALUE")
}

func TestProvidersListShowsWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/accounts": {200, nil, `{"data":[` + accountJSON + `]}`},
		"GET /admin/v1/limits": {200, nil, `{"data":[{"account":"ses-eu","limit":{"n":14,"per":"1s","unit":"requests"},"used":3,"free":11,` +
			`"blocked_until":"2026-01-31T12:00:01Z"}]}`},
	})
	want := []string{
		"ACCOUNT KIND STATE CALLS LIMIT LEFT BLOCKED UNTIL", "ses-eu ses parked (see show) 20 14 requests per 1s 11 2026-01-31 12:00:01Z",
		"50000 recipients per 24h - -",
	}
	if diff := cmp.Diff(want, fields(w.run("providers", "list").out)); diff != "" {
		t.Errorf("output (-want +got)\n%s", diff)
	}
	w.run("providers", "list", "--json").want(t, 0, `"kind": "ses"`, "")
}

func TestProvidersLimitsReplacesThem(t *testing.T) {
	t.Parallel()
	limits := answer{200, nil, `{"limits":[{"n":50,"per":"1s","unit":"requests"}],"documented":[{"n":14,"per":"1s","unit":"requests"}]}`}
	w := newWorld(t, map[string]answer{
		"PUT /admin/v1/accounts/ses/limits": limits, "GET /admin/v1/accounts/ses/limits": limits, "GET /admin/v1/limits": {200, nil, `{"data":[]}`},
	})
	w.run("providers", "limits", "ses").want(t, 0, "documented: 14 requests per 1s", "")
	for _, c := range []struct{ args, body string }{
		{"--set 50/1s/requests", `{"limits":[{"n":50,"per":"1s","unit":"requests"}]}`}, {"--none", `{"limits":[]}`},
	} {
		w.run(append([]string{"providers", "limits", "ses"}, strings.Fields(c.args)...)...).want(t, 0, "50 requests per 1s", "")
		if got := w.last("PUT", "/admin/v1/accounts/ses/limits").body; got != c.body {
			t.Errorf("%s: PUT %s, want %s", c.args, got, c.body)
		}
	}
}

func TestProvidersTurnAndRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"POST /admin/v1/accounts/ses-eu/pause": {200, nil, accountJSON}, "POST /admin/v1/accounts/ses-eu/resume": {200, nil, accountJSON},
		"GET /admin/v1/accounts/ses-eu": {200, nil, accountJSON}, "DELETE /admin/v1/accounts/ses-eu": {202, nil, accountJSON},
	})
	w.run("providers", "pause", "ses-eu").want(t, 0, "ses-eu", "")
	w.run("providers", "resume", "ses-eu").want(t, 0, "ses-eu", "")
	o := w.run("providers", "show", "ses-eu")
	for _, says := range []string{"sendgate providers resume ses-eu", "max bytes 40000000", "smtputf8 false", "forbidden extensions: 2"} {
		o.want(t, 0, says, "")
	}
	w.run("providers", "remove", "ses-eu").want(t, 0, "removed", "")
	w.run("providers", "show", "other").want(t, 1, "", "Not found")
}

func TestKeys(t *testing.T) {
	t.Parallel()
	key := `{"id":"1f0c9a2b","tenant":"default","name":"checkout","scopes":["send","read"],"sender_domains":["example.com"],"created_at":"2026-01-31T12:00:00Z"`
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/keys":             {200, nil, `{"data":[` + key + `},` + key + `,"revoked_at":"2026-01-31T12:00:00Z"}]}`},
		"POST /admin/v1/keys":            {201, nil, key + `,"secret":"sg_once"}`},
		"DELETE /admin/v1/keys/1f0c9a2b": {204, nil, ""},
	})
	w.run("keys", "create", "checkout", "--scope", "send,read", "--sender", "example.com", "--rate", "5").want(t, 0, "sg_once", "not shown again")
	if got, want := w.last("POST", "/admin/v1/keys").body,
		`{"name":"checkout","scopes":["send","read"],"sender_domains":["example.com"],"rate_per_second":5}`; got != want {
		t.Errorf("POST %s\nwant %s", got, want)
	}
	o := w.run("keys", "list")
	o.want(t, 0, "valid", "")
	o.want(t, 0, "revoked", "")
	w.run("keys", "revoke", "1f0c9a2b").want(t, 0, "revoked", "")
}

func TestKeysGenerateNeedsNoServer(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	a, b := w.run("keys", "generate"), w.run("keys", "generate")
	if a.code != 0 || !strings.HasPrefix(a.out, "sg_") || a.out == b.out {
		t.Errorf("keys generate = %+v, then %+v; want two different keys", a, b)
	}
}

func TestQueueAndAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/queue": {200, nil, `{"ready":12,"scheduled":3,"inflight":4,"unknown":1,"oldest_due":"2026-01-31T12:00:00Z",` +
			`"tenants":[{"tenant":"default","ready":12}],"replicas":[{"id":"r1","host":"h1"}]}`},
		"GET /admin/v1/audit": {200, nil, `{"data":[{"id":9,"at":"2026-01-31T12:00:00Z","actor":"1f0c9a2b","actor_name":"alice","action":"pool.update","target":"default","detail":{"a":1}},` +
			`{"id":8,"at":"2026-01-31T12:00:00Z","actor":"1f0c9a2b","action":"account.pause","target":"ses","detail":null}],"next_cursor":"C"}`},
	})
	o := w.run("queue")
	o.want(t, 0, "oldest due", "")
	o.want(t, 0, "replica h1", "")
	o = w.run("audit", "--limit", "1")
	o.want(t, 0, "pool.update", "--cursor C")
	if strings.Contains(o.out, "null") {
		t.Errorf("an entry without details shows null:\n%s", o.out)
	}
	if got := w.last("GET", "/admin/v1/audit").query; got != "limit=1" {
		t.Errorf("query = %s", got)
	}
	w.run("audit", "--actor", "alice", "--action", "pool", "--target", "default", "--since", "2026-01-31", "--until", "2026-02-01T10:00:00+02:00").want(t, 0, "alice (1f0c9a2b)", "")
	if got, want := w.last("GET", "/admin/v1/audit").query, "action=pool&actor=alice&limit=50&since=2026-01-31T00%3A00%3A00Z&target=default&until=2026-02-01T08%3A00%3A00Z"; got != want {
		t.Errorf("query = %s\nwant %s", got, want)
	}
}

// The hashes are computed here: an answer can't say that they fit.
func TestAuditVerify(t *testing.T) {
	t.Parallel()
	hash := func(before []byte, rest string) (raw []byte, text string) {
		sum := sha256.Sum256(append(slices.Clone(before), rest...))
		return sum[:], hex.EncodeToString(sum[:])
	}
	raw, one := hash(nil, `1[1, "a"]`)
	_, two := hash(raw, `2[2, "b"]`)
	chain := func(content string) answer {
		return answer{200, nil, fmt.Sprintf(`{"data":[{"n":1,"id":1,"hash":%q,"content":"[1, \"a\"]"},{"n":2,"id":2,"hash":%q,"content":%q}],"unlinked":[]}`, one, two, content)}
	}
	w := newWorld(t, map[string]answer{"GET /admin/v1/audit/chain": chain(`[2, "b"]`)})
	w.run("audit", "verify").want(t, 0, "the chain holds", "")
	w.run("audit", "verify", "--expect", one).want(t, 0, two, "")
	w.run("audit", "verify", "--expect", strings.Repeat("0", 64)).want(t, 1, "cut off", "")
	w.run("audit", "verify", "--expect", "12").want(t, 2, "", "64 hex digits")
	w.run("audit", "verify", "--json").want(t, 0, `"faults": []`, "")
	w = newWorld(t, map[string]answer{"GET /admin/v1/audit/chain": chain(`[2, "c"]`)})
	w.run("audit", "verify").want(t, 1, "link 2, entry 2: the entry or its link was changed", "")
	w.run("audit", "verify", "--json").want(t, 1, `"kind": "changed"`, "")
}

func TestPoolsSetNamesTheAccountThatIsWrong(t *testing.T) {
	t.Parallel()
	refusal := answer{422, nil, `{"title":"Invalid","status":422,"errors":[{"field":"accounts[2].account","message":"is not an account"}]}`}
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/pools/default": {200, nil, poolBefore}, "PUT /admin/v1/pools/default": refusal, "POST /admin/v1/pools": refusal,
	})
	w.run("pools", "set", "default", "nosuch=5").want(t, 1, "", "account nosuch: is not an account")
	w.run("pools", "create", "bulk", "a=1", "b=1", "other=1").want(t, 1, "", "account other: is not an account")
}

func TestPoolsSetRefusesAnUnknownOverflow(t *testing.T) {
	t.Parallel()
	(&world{t: t}).run("pools", "set", "default", "--overflow", "x").want(t, 2, "", "--overflow must be spill or wait")
}
