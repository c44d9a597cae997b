//go:build drill

package drill

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// poisons are messages that can't be delivered, by the local part of their recipient, and how they end: a recipient that no
// provider takes, one that takes no mail, a message that is too large for each provider that tries it, and a type of
// attachment that two providers are known to refuse and the others also refuse.
func poisons() map[string]string {
	return map[string]string{"reject": "failed", "bounce": "bounced", "heavy": "failed", "typed": "failed"}
}

// refusers is the script of the providers for these.
func refusers() map[string][]emulator.Fault {
	all := everywhere(emulator.Fault{Mode: "error", Status: http.StatusRequestEntityTooLarge, Match: "heavy+*"})
	all["smtp"] = []emulator.Fault{
		{Mode: "error", Stage: "data", Status: 552, Body: "5.3.4 Message too big", Match: "heavy+*"},
		{Mode: "error", Stage: "data", Status: 552, Body: "5.7.0 Blocked for its content", Match: "typed+*"},
	}
	typed := func(body string) emulator.Fault {
		return emulator.Fault{Mode: "error", Status: http.StatusBadRequest, Body: body, Match: "typed+*"}
	}
	all["sendgrid"] = append(all["sendgrid"], typed(`{"errors":[{"message":"The attachment type is not allowed.","field":"attachments.0.type"}]}`))
	all["mailgun"] = append(all["mailgun"], typed(`{"message":"attachment type is not allowed"}`))
	return all
}

// One message in a hundred, of each kind, can't be delivered. No other message waits for it, it ends with a reason, and it is
// not tried for ever.
func TestD37MessagesArePoison(t *testing.T) {
	drillTest(t, "D37", plan{load: load{plain: true}}, func(t *testing.T, r *rig) {
		r.faults(t, refusers())
		pause(t, *duration)
		began := time.Now()
		sent, batched := r.sendPoison(t)
		ended := time.Now()
		r.beside(t, began.Add(-*duration), began, "without")
		r.beside(t, began, ended, "with")
		r.hit(t, "mailgun", 1)
		r.clients.stop()
		must(t, healWithin, "everything has ended", func() bool { return r.count(t.Context(), openSQL) == 0 })
		for kind, status := range poisons() {
			r.report.tally(kind, len(sent[kind]))
			r.judgePoison(t, sent[kind], kind, status)
		}
		// The good messages of a batch are sent once, whatever else was in the batch.
		times := map[string]int{}
		for _, line := range r.emu.Ledger() {
			times[line.MessageID]++
		}
		wrong := slices.DeleteFunc(slices.Clone(batched), func(id string) bool { return times[id] == 1 })
		if len(batched) == 0 || len(wrong) > 0 {
			t.Errorf("good messages of batches = %d, of which %d were not sent once: %v", len(batched), len(wrong), wrong[:min(3, len(wrong))])
		}
	})
}

// sendPoison sends of each kind a hundredth of the load and at least ten, over the duration, and with each a batch of four
// good messages that has one more of that kind in it. It returns the ids by kind, and those of the good ones.
func (r *rig) sendPoison(t *testing.T) (sent map[string][]string, good []string) {
	t.Helper()
	log, err := os.Create(filepath.Join(r.dir, "client-poison.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	sent = map[string][]string{}
	n := max(10, int(float64(*rate)*duration.Seconds()/100))
	for i := range n {
		for kind, status := range poisons() {
			x := r.poison(kind, i)
			p := promise{Key: fmt.Sprintf("%s-%s-%d", r.id, kind, i), Policy: x.policy, Tenant: x.tenant, Poison: status == "failed"}
			if !r.clients.send(t.Context(), x, &p) {
				t.Fatalf("key %s was not answered", p.Key)
			}
			if err := note(log, p); err != nil {
				t.Fatal(err)
			}
			sent[kind] = append(sent[kind], p.ID)
			ids := r.sendBatch(t, r.poison(kind, n+i), i)
			sent[kind], good = append(sent[kind], ids[0]), append(good, ids[1:]...)
		}
		pause(t, *duration/time.Duration(n))
	}
	return sent, good
}

func (r *rig) poison(kind string, i int) letter {
	x := load{plain: true}.compose(random(fmt.Sprintf("%s %s %d", r.id, kind, i)), 500, i)
	x.request.To[0].Email = fmt.Sprintf("%s+%d@example.org", kind, i)
	if kind == "bounce" { // a hard one keeps the address from being mailed again
		x.request.To[0].Email = fmt.Sprintf("%s+%d-%s@example.org", kind, i, x.tenant)
	}
	if kind == "typed" {
		x.request.Attachments = []api.Attachment{{
			Filename: "setup.exe", ContentType: "application/octet-stream", Content: base64.StdEncoding.EncodeToString([]byte("MZ")),
		}}
	}
	return x
}

// sendBatch sends a message and four good ones as one request, and returns their ids, that one's first.
func (r *rig) sendBatch(t *testing.T, bad letter, i int) []string {
	t.Helper()
	batch := api.BatchRequest{Messages: []api.SendRequest{bad.request}}
	for k := range 4 {
		batch.Messages = append(batch.Messages, load{plain: true}.compose(random(fmt.Sprintf("%s batch %d", r.id, i)), 510+k, i).request)
	}
	x := r.replicas[i%len(r.replicas)]
	got, err := api.NewWith("http://"+x.api, r.keys[bad.tenant], r.http).SendBatch(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, item := range got.Results {
		if item.SendResult == nil {
			t.Fatalf("a message of a batch was refused: %v", item.Error)
		}
		ids = append(ids, item.ID)
	}
	return ids
}

// judgePoison: each ended as it should, says why, and was given to no account twice. A bounce comes after its message was
// sent.
func (r *rig) judgePoison(t *testing.T, ids []string, kind, status string) {
	t.Helper()
	const right = `SELECT count(*) FROM message m WHERE m.id = ANY ($1::uuid[]) AND m.status = $2 AND NOT EXISTS (
		SELECT 1 FROM recipient c WHERE c.message_id = m.id AND c.detail = '' AND c.bounce IS NULL)`
	if !eventually(t, 20*time.Second, func() bool { return r.count(t.Context(), right, ids, status) == len(ids) }) {
		t.Errorf("%s: %d of %d messages are %s and say why", kind, r.count(t.Context(), right, ids, status), len(ids), status)
		r.show(t, `SELECT m.id::text, m.status, c.detail, c.bounce FROM message m JOIN recipient c ON c.message_id = m.id
			WHERE m.id = ANY ($1::uuid[]) AND m.status <> $2 LIMIT 5`, ids, status)
	}
	again := r.number(t, `SELECT count(*) FROM (SELECT FROM attempt WHERE message_id = ANY ($1::uuid[])
		GROUP BY message_id, account_id HAVING count(*) > 1) x`, ids)
	calls := r.number(t, `SELECT count(*) FROM attempt WHERE message_id = ANY ($1::uuid[])`, ids)
	r.report.tally(kind+"_calls", calls)
	if again != 0 || calls < len(ids) {
		t.Errorf("%s: calls of %d messages = %d, accounts that were given one twice = %d; want at least one each, and none", kind, len(ids), calls, again)
	}
	if kind == "heavy" && calls <= len(ids) {
		t.Error("nobody else was asked about what is too large for one")
	}
}

// beside measures the good mail of a period: the time from its 202 to the provider's acceptance, and its number.
func (r *rig) beside(t *testing.T, from, to time.Time, name string) {
	t.Helper()
	const spent = `SELECT (1000 * percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM t.finished_at - m.created_at)))::integer
		FROM message m JOIN attempt t ON t.message_id = m.id WHERE t.class = 'accepted' AND m.created_at BETWEEN $1 AND $2`
	const many = `SELECT count(*) FROM attempt WHERE class = 'accepted' AND finished_at BETWEEN $1 AND $2`
	r.report.figure("p99_sent_"+name, time.Duration(r.number(t, spent, from, to))*time.Millisecond, 0)
	r.report.tally("per_s_"+name, int(float64(r.number(t, many, from, to))/to.Sub(from).Seconds()))
}
