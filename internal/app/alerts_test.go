//go:build drill

package app

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
)

// scrape reads the series of a service, as Prometheus would.
func (b *bench) scrape(t *testing.T, r *replica) map[string]float64 {
	t.Helper()
	_, text := b.get(t, r.ops+"/metrics")
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") || !strings.HasPrefix(line, "sendgate_") || strings.Contains(line[:at], "_bucket{") {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:at]] = v
	}
	return all
}

// How long, in minutes, each of three scrapes lasts in the time of the rules: before, while all is wrong, and afterwards. The
// last one is longer than a day, over which some rules look back.
const (
	minutesBefore = 20
	minutesWrong  = 10
	minutesAfter  = 26 * 60
)

// firing runs the rules over the three scrapes and returns which alerts fire at a minute.
func firing(t *testing.T, scrapes [3]map[string]float64, wants map[int]string) {
	t.Helper()
	rules, err := filepath.Abs("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range scrapes {
		for name := range s {
			names[name] = true
		}
	}
	var y strings.Builder
	fmt.Fprintf(&y, "rule_files: [%s]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n", rules)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		var values []string
		for i, n := range []int{minutesBefore, minutesWrong, minutesAfter} {
			v, there := scrapes[i][name]
			if there {
				values = append(values, fmt.Sprintf("%gx%d", v, n-1))
			} else {
				values = append(values, fmt.Sprintf("_x%d", n))
			}
		}
		fmt.Fprintf(&y, "      - series: '%s'\n        values: '%s'\n", name, strings.Join(values, " "))
	}
	y.WriteString("    promql_expr_test:\n")
	for _, minute := range slices.Sorted(maps.Keys(wants)) {
		fmt.Fprintf(&y, "      - expr: max by (alertname) (ALERTS{alertstate=\"firing\", alertname!=\"SendgateBooksUnchecked\"})\n        eval_time: %dm\n        exp_samples:\n", minute)
		for _, name := range strings.Fields(wants[minute]) {
			fmt.Fprintf(&y, "          - {labels: '{alertname=\"%s\"}', value: 1}\n", name)
		}
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	if err := os.WriteFile(file, []byte(y.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("the alerts do not fire as they should: %v\n%s", err, out)
	}
}

// Everything goes wrong with a real service, and is mended. The alerts are run over what it exported meanwhile.
func TestEachAlertFiresWhenItsCauseIsThereAndResolves(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not installed (Debian package prometheus): the alerts are not run over the metrics of a service")
	}
	b, settings := newCircle(t)
	r := b.start(t, append(settings, "SENDGATE_PARK_PROBE=1s")...)
	admin := r.admin
	if _, err := admin.SetLimits(t.Context(), "resend", []api.Limit{{N: 10, Per: "24h0m0s", Unit: string(limit.Messages)}}); err != nil {
		t.Fatal(err)
	}
	calm := func(series map[string]float64) bool {
		_, counted := series[`sendgate_delivered_total{account="mailgun",stream="other"}`]
		return counted && series["sendgate_books_checked_timestamp_seconds"] > 0
	}
	var scrapes [3]map[string]float64
	eventually(t, settleTime, "the service exports its figures", func() bool {
		scrapes[0] = b.scrape(t, r)
		return calm(scrapes[0])
	})

	down := []emulator.Fault{{Mode: "error", Status: 503, Match: "down-*"}}
	b.faults(t, map[string][]emulator.Fault{
		"mailgun":  {{Mode: "error", Status: 401, Body: "Forbidden"}},
		"sendgrid": down,
		"smtp":     {{Mode: "accept_then_drop", Match: "lost-*"}},
		"ses":      {{Mode: "hook_drop"}},
	})
	b.exec(t, `UPDATE account SET created_at = now() - interval '3 hours' WHERE name = 'ses'`) // it is read with the next change
	only(t, r, "sendgrid", "postmark")
	pool, err := admin.Pool(t.Context(), "default")
	if err == nil {
		pool.Accounts = []api.PoolMember{{Account: "sendgrid", Weight: 1000}, {Account: "postmark", Weight: 1}}
		_, err = admin.PutPool(t.Context(), *pool)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.binds(t, r)
	for i := range 40 { // the first of them go to sendgrid, and on to postmark
		m := letter(i)
		m.To[0].Email = fmt.Sprintf("down-%d@example.org", i)
		send(t, r.api, m)
	}
	waits := send(t, r.api, letterTo("mailgun", "ann@example.org")) // until mailgun takes mail again
	for i := range 12 {
		m := letterTo("smtp", fmt.Sprintf("lost-%d@example.org", i))
		m.OnAmbiguous = "reconcile"
		send(t, r.api, m)
		if i < 10 {
			send(t, r.api, letterTo("resend", fmt.Sprintf("ann%d@example.org", i)))
		}
	}
	for i := range 40 {
		local := "ann"
		switch {
		case i < 12:
			local = "bounce"
		case i < 16:
			local = "complaint"
		}
		send(t, r.api, letterTo("postmark", fmt.Sprintf("%s+%d@example.org", local, i)))
	}
	send(t, r.api, letterTo("ses", "ann@example.org"))
	b.past(t, waits)
	scrapes[1] = b.await(t, r, map[string]float64{
		`sendgate_parked{account="mailgun"}`: 1, `sendgate_invariant_violations{kind="lost"}`: 1, "sendgate_queue_age_seconds": 300, "sendgate_unknown": 10,
		`sendgate_bounced_total{account="postmark",class="hard",stream="transactional"}`: 12,
		`sendgate_complained_total{account="postmark",stream="transactional"}`:           4,
		`sendgate_failovers_total{account="postmark"}`:                                   10,
		`sendgate_attempts_total{account="sendgrid",class="transient",kind="sendgrid"}`:  5,
		`sendgate_limit_used_ratio{account="resend",limit="10 messages per 24h0m0s"}`:    .9,
		`sendgate_webhooks_silent{account="ses"}`:                                        1,
	}, nil)

	b.faults(t, nil)
	b.mend(t)
	if _, err := admin.SetLimits(t.Context(), "resend", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ResumeAccount(t.Context(), "mailgun"); err != nil {
		t.Fatal(err)
	}
	send(t, r.api, letterTo("ses", "carol@example.org")) // its events come again
	scrapes[2] = b.await(t, r, nil, map[string]float64{
		`sendgate_parked{account="mailgun"}`: 0, `sendgate_invariant_violations{kind="lost"}`: 0, "sendgate_queue_age_seconds": 299,
		`sendgate_webhooks_silent{account="ses"}`: 0, "sendgate_unknown": 9,
	})
	const lasting = "SendgateAuthFailure SendgateBooks SendgateBounceRate SendgateComplaintRate SendgateComplaintRateHigh SendgateFailoverShare " +
		"SendgateQueueAge SendgateQuotaNear"
	firing(t, scrapes, map[int]string{
		minutesBefore - 2: "", minutesBefore + 2: lasting + " SendgateProviderDown SendgateUnknownGrowing",
		minutesBefore + 7: lasting + " SendgateWebhooksSilent", minutesBefore + minutesWrong + minutesAfter - 2: "",
	})
}

// await scrapes until some series have a least value and others a greatest one.
func (b *bench) await(t *testing.T, r *replica, least, greatest map[string]float64) (series map[string]float64) {
	t.Helper()
	var lacking []string
	defer func() {
		if t.Failed() {
			t.Logf("what was waited for: %s", strings.Join(lacking, "; "))
		}
	}()
	eventually(t, settleTime, "the figures", func() bool {
		series, lacking = b.scrape(t, r), nil
		for name, v := range least {
			if got := series[name]; got < v {
				lacking = append(lacking, fmt.Sprintf("%s is %g, want %g at least", name, got, v))
			}
		}
		for name, v := range greatest {
			if got := series[name]; got > v {
				lacking = append(lacking, fmt.Sprintf("%s is %g, want %g at most", name, got, v))
			}
		}
		return len(lacking) == 0
	})
	return series
}

// past makes a message wait since ten minutes ago, and loses another one.
func (b *bench) past(t *testing.T, waits string) {
	t.Helper()
	b.exec(t, `UPDATE message SET created_at = now() - interval '10 minutes' WHERE id = $1`, waits)
	b.exec(t, `INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
		VALUES (uuid_floor(now()), 1, 'queued', 'transactional', 'a@example.com', 'lost', '{}', 'never', now(), now() + interval '1 day', now())`)
}

// mend finds the lost message, and decides the unknown ones.
func (b *bench) mend(t *testing.T) {
	t.Helper()
	b.exec(t, `DELETE FROM message WHERE subject = 'lost'`)
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
}
