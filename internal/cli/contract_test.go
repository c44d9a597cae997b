package cli

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sendgate/sendgate/api"
)

// commandOfOperation has a command line that makes each call of the contract. A new call needs a line here, or one in noCommand.
var commandOfOperation = map[string]string{
	"send":                    "send --from a@example.com --to b@example.org --text Hi",
	"sendBatch":               "load --messages 2 --batch 2",
	"listMessages":            "messages list",
	"getMessage":              "messages show ID",
	"cancelMessage":           "messages cancel ID",
	"resendMessage":           "messages resend ID",
	"listEvents":              "events list",
	"streamEvents":            "events tail",
	"getStats":                "events stats",
	"listSuppressions":        "suppressions list",
	"addSuppression":          "suppressions add a@example.org",
	"exportSuppressions":      "suppressions export",
	"importSuppressions":      "suppressions import -",
	"getSuppression":          "suppressions check a@example.org",
	"deleteSuppression":       "suppressions remove a@example.org",
	"listWebhookEndpoints":    "webhooks list",
	"createWebhookEndpoint":   "webhooks add https://example.com",
	"getWebhookEndpoint":      "webhooks show ID",
	"patchWebhookEndpoint":    "webhooks set ID --enable",
	"deleteWebhookEndpoint":   "webhooks remove ID",
	"rotateWebhookEndpoint":   "webhooks rotate ID",
	"replayWebhookEndpoint":   "webhooks replay ID --since 1h",
	"testWebhookEndpoint":     "webhooks test ID",
	"listWebhookDeliveries":   "webhooks deliveries ID",
	"listAccounts":            "providers list",
	"createAccount":           "providers add ses --kind ses",
	"getAccount":              "providers show ses",
	"patchAccount":            "providers change ses --concurrency 2",
	"deleteAccount":           "providers remove ses",
	"pauseAccount":            "providers pause ses",
	"resumeAccount":           "providers resume ses",
	"getAccountLimits":        "providers limits ses",
	"putAccountLimits":        "providers limits ses --none",
	"getAccountWebhooks":      "providers webhooks ses",
	"registerAccountWebhooks": "providers webhooks ses --url https://example.com",
	"reproject":               "events reproject",
	"listPools":               "pools list",
	"createPool":              "pools create bulk ses=1",
	"getPool":                 "pools show default",
	"putPool":                 "pools set default ses=1",
	"listRules":               "rules list",
	"createRule":              "rules add bulk",
	"replaceRules":            "rules replace -",
	"deleteRule":              "rules remove 3",
	"explainRoute":            "route explain -",
	"explainMessage":          "route explain ID",
	"listKeys":                "keys list",
	"createKey":               "keys create app",
	"patchKey":                "keys change ID --anywhere",
	"rotateKey":               "keys rotate ID",
	"revokeKey":               "keys revoke ID",
	"listTenants":             "tenants list",
	"createTenant":            "tenants create shop",
	"patchTenant":             "tenants pause shop",
	"bulk":                    "bulk cancel --all --dry-run",
	"getQueue":                "queue",
	"listLimits":              "providers list",
	"listAudit":               "audit",
	"listAuditChain":          "audit verify",
	"listUsers":               "users list",
	"createUser":              "users create ann --role viewer",
	"getUser":                 "users show ann",
	"patchUser":               "users disable ann",
	"resetUser":               "users reset ann",
	"listUserSessions":        "users sessions ann",
	"endUserSessions":         "users sign-out ann",
	"listIncidents":           "notify incidents",
	"listNotifyRules":         "notify list",
	"createNotifyRule":        "notify add pager --webhook https://ops.example.com",
	"deleteNotifyRule":        "notify remove pager",
	"testNotifyRule":          "notify test pager",
	"listSeries":              "series sent",
	"countSubject":            "subjects erase a@example.org --yes",
	"exportSubject":           "subjects export a@example.org",
	"eraseSubject":            "subjects erase a@example.org --yes",
}

// noCommand are the calls that no command makes, and why.
var noCommand = map[string]string{
	"receiveHook":      "providers make it, with their signature",
	"askUnsubscribe":   "the recipient's browser makes it, with the token of a mail",
	"checkUnsubscribe": "mail programs make it, with the token of a mail",
	"unsubscribe":      "mail programs make it, with the token of a mail",
	"getContract":      "a file for programs: curl fetches it",
	"getContractJSON":  "a file for programs: curl fetches it",
	"explainProblem":   "a page for people: each error names its address",
}

func TestEveryCallOfTheContractHasACommand(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			id := op.OperationID
			seen[id] = true
			line, exempt := commandOfOperation[id], noCommand[id]
			switch {
			case line == "" && exempt == "":
				t.Errorf("no command makes the call %s (%s %s)", id, method, path)
			case line != "" && exempt != "":
				t.Errorf("%s is in both tables", id)
			case line != "" && !calls(t, line, method, path):
				t.Errorf("%q does not call %s %s", line, method, path)
			}
		}
	}
	for id := range commandOfOperation {
		if !seen[id] {
			t.Errorf("commandOfOperation has %s, which is no call", id)
		}
	}
	for id, why := range noCommand {
		if !seen[id] || why == "" {
			t.Errorf("noCommand has %s, which is no call or has no reason", id)
		}
	}
}

var parameter = regexp.MustCompile(`\{[a-z]+\}`)

// calls reports whether a command line makes a call, with the right key. The server answers everything with an object that has only a name.
func calls(t *testing.T, line, method, path string) bool {
	t.Helper()
	wanted := regexp.MustCompile("^" + parameter.ReplaceAllString(path, "[^/]+") + "$")
	key := "Bearer sg_api"
	if strings.HasPrefix(path, "/admin/") {
		key = "Bearer sg_admin"
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	made := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		made = made || r.Method == method && wanted.MatchString(r.URL.Path) && r.Header.Get("Authorization") == key
		mu.Unlock()
		if line == "events tail" {
			cancel() // it would run for ever
		}
		answer{200, nil, `{"name":"default"}`}.write(w)
	}))
	defer srv.Close()
	w := &world{t: t, dir: t.TempDir(), stdin: `{"data":[]}`, env: []string{"SENDGATE_URL=" + srv.URL, "SENDGATE_API_KEY=sg_api", "SENDGATE_ADMIN_KEY=sg_admin"}}
	args := strings.Fields(strings.ReplaceAll(line, "ID", someID))
	o := w.runIn(ctx, args...)
	if o.code == exitUsage {
		t.Errorf("%q: %s", line, cmp.Or(o.err, o.out))
	}
	mu.Lock()
	defer mu.Unlock()
	return made
}

// noJSON are the commands without --json, and why.
var noJSON = map[string]string{
	"dev":             "it runs until it is stopped; its files have the address and the keys",
	"serve":           "it runs until it is stopped; its log is JSON",
	"emulate":         "it runs until it is stopped; its control API is JSON",
	"migrate up":      "it prints the migrations as they are applied",
	"migrate status":  "it prints a line for each migration",
	"keys generate":   "it prints one word",
	"subjects export": "it prints JSON lines",
	"completion":      "it prints a script",
}

func TestEveryCommandPrintsJSON(t *testing.T) {
	t.Parallel()
	parser, err := newParser(t.Context(), &Streams{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, leaf := range parser.Model.Leaves(false) {
		words := dropPositionals(leaf, strings.Fields(leaf.Path()))
		name := strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "sendgate" }), " ")
		has := flagOf(leaf, "--json") != nil
		seen[name] = true
		if exempt := noJSON[name] != ""; has == exempt {
			t.Errorf("%s: has --json: %t, is in noJSON: %t", name, has, exempt)
		}
	}
	for name := range noJSON {
		if !seen[name] {
			t.Errorf("noJSON has %s, which is no command", name)
		}
	}
}
