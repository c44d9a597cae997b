package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sendgate/sendgate/api"
)

// reporter signs the events of SendGrid, a hundred in each request, and of Postmark, one in each.
type reporter struct {
	key      *ecdsa.PrivateKey // of SendGrid's Event Webhook
	password string            // of Postmark's
}

// report is a request with events.
type report struct {
	body   []byte
	header http.Header
}

// events measures the reports of providers: how many are stored a second, alone and by a hundred, and how long it takes until
// the caller's endpoint has one.
func events(ctx context.Context, s *stage, t *table) error {
	told, err := listen(ctx)
	if err != nil {
		return err
	}
	defer told.close()
	g, p, from, err := s.withReporters(ctx, told)
	if err != nil {
		return err
	}
	defer p.stop()
	defer g.stop()
	if err := intake(ctx, s, t, g, from, "sendgrid", 100); err != nil {
		return err
	}
	if err := intake(ctx, s, t, g, from, "postmark", 1); err != nil {
		return err
	}
	return forwarded(ctx, t, g, from, told)
}

// withReporters starts sendgate with two accounts whose keys are ours, and lets it post to told.
func (s *stage) withReporters(ctx context.Context, told *receiver) (*gateway, *process, reporter, error) {
	var ready providers
	var from reporter
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, from, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, from, err
	}
	p, err := part("instant", nil, &ready)
	if err != nil {
		return nil, nil, from, err
	}
	accounts := only(ready.Accounts, []string{"sendgrid", "postmark"})
	for i := range accounts {
		a := &accounts[i]
		if a.Kind == "postmark" {
			from = reporter{key, a.Secrets["webhook_password"]}
			continue
		}
		settings := map[string]any{}
		if err = json.Unmarshal(a.Settings, &settings); err != nil {
			break
		}
		settings["webhook_public_keys"] = []string{base64.StdEncoding.EncodeToString(public)}
		if a.Settings, err = json.Marshal(settings); err != nil {
			break
		}
	}
	var g *gateway
	if err == nil {
		g, err = s.gateway(ctx, "SENDGATE_FORWARD_ALLOW=127.0.0.1/32:"+strconv.Itoa(told.port))
	}
	if err != nil {
		p.stop()
		return nil, nil, from, err
	}
	g.providers = ready.URL
	if err := g.accounts(ctx, accounts); err != nil {
		g.stop()
		p.stop()
		return nil, nil, from, err
	}
	return g, p, from, nil
}

// intake sends a backlog through one account, and then posts an event for each of its messages.
func intake(ctx context.Context, s *stage, t *table, g *gateway, from reporter, kind string, size int) error {
	sent, err := g.sentThrough(ctx, kind, s.rows)
	if err != nil {
		return err
	}
	var reports []report
	for chunk := range slices.Chunk(sent, size) {
		r, err := from.delivered(kind, chunk)
		if err != nil {
			return err
		}
		reports = append(reports, r)
	}
	before, err := g.usage(ctx)
	if err != nil {
		return err
	}
	got, err := post(g, kind, reports).run(ctx)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("events in by %d", size)
	t.add(name, "/s", float64(size)*got.rate())
	t.add(name+": p99", "ms", ms(got.quantile(0.99)))
	return g.report(ctx, t, name, len(sent), before)
}

// post is a load of reports, each once.
func post(g *gateway, kind string, reports []report) load {
	return load{
		url: g.url + "/hooks/" + kind, clients: min(64, len(reports)), requests: int64(len(reports)),
		body:   func(n int64) []byte { return reports[n-1].body },
		header: func(h http.Header, n int64) { copyHeader(h, reports[n-1].header) },
	}
}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		to[name] = values
	}
}

// message is one that was sent.
type message struct{ id, to string }

// sentThrough sends n messages through one account and returns those.
func (g *gateway) sentThrough(ctx context.Context, kind string, n int) ([]message, error) {
	before := g.taken(ctx)
	if err := g.backlog(ctx, n, pinned(kind)); err != nil {
		return nil, err
	}
	if err := await(ctx, "the backlog is sent", func() bool {
		left, err := g.number(ctx, `SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM inflight)`)
		return err == nil && left == 0 && g.taken(ctx).since(before).Mails >= int64(n)
	}); err != nil {
		return nil, err
	}
	rows, err := g.rows.Query(ctx, `SELECT r.message_id::text, r.email FROM recipient r JOIN attempt t USING (message_id) JOIN account a ON a.id = t.account_id
		WHERE a.name = $1 AND r.status = 'sent'`, kind)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var sent []message
	for rows.Next() {
		var m message
		if err := rows.Scan(&m.id, &m.to); err != nil {
			return nil, err
		}
		sent = append(sent, m)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(sent) != n {
		return nil, fmt.Errorf("%d messages were sent, want %d", len(sent), n)
	}
	return sent, nil
}

// delivered says that messages were delivered.
func (from reporter) delivered(kind string, all []message) (report, error) {
	now := time.Now()
	if kind == "postmark" {
		body, err := json.Marshal(map[string]any{
			"RecordType": "Delivery", "MessageID": all[0].id, "Recipient": all[0].to, "ServerID": 23, "MessageStream": "outbound",
			"Metadata": map[string]string{"gw_msg": all[0].id}, "DeliveredAt": now.UTC().Format(time.RFC3339Nano), "Details": "250 2.0.0 OK",
		})
		return report{body, http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("sendgate:"+from.password))}}}, err
	}
	list := make([]map[string]any, len(all))
	for i, m := range all {
		list[i] = map[string]any{
			"email": m.to, "timestamp": now.Unix(), "event": "delivered", "sg_event_id": rand.Text(), "response": "250 2.0.0 OK",
			"sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "gw_msg": m.id, "ip": "192.0.2.1", "tls": 1,
		}
	}
	body, err := json.Marshal(list)
	if err != nil {
		return report{}, err
	}
	stamp := strconv.FormatInt(now.Unix(), 10)
	sum := sha256.Sum256(append([]byte(stamp), body...))
	signature, err := ecdsa.SignASN1(rand.Reader, from.key, sum[:])
	return report{body, http.Header{
		"X-Twilio-Email-Event-Webhook-Signature": {base64.StdEncoding.EncodeToString(signature)},
		"X-Twilio-Email-Event-Webhook-Timestamp": {stamp},
	}}, err
}

// forwarded measures from the provider's report to the post to the caller's endpoint, one at a time.
func forwarded(ctx context.Context, t *table, g *gateway, from reporter, told *receiver) error {
	url := fmt.Sprintf("http://127.0.0.1:%d/", told.port)
	caller := api.NewWith(g.url, g.key, &http.Client{Timeout: time.Minute})
	if _, err := caller.CreateWebhookEndpoint(ctx, api.WebhookEndpointRequest{URL: &url}); err != nil {
		return err
	}
	const single = 100
	sent, err := g.sentThrough(ctx, "sendgrid", single)
	if err != nil {
		return err
	}
	waits := result{}
	for i, m := range sent[:single] {
		r, err := from.delivered("sendgrid", []message{m})
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := post(g, "sendgrid", []report{r}).run(ctx); err != nil {
			return err
		}
		if err := await(ctx, "the endpoint has the event", func() bool { return told.count() > i }); err != nil {
			return err
		}
		waits.waits = append(waits.waits, told.latest().Sub(began))
	}
	slices.Sort(waits.waits)
	t.add("event in to event out, idle: p50", "ms", ms(waits.quantile(0.5)))
	t.add("event in to event out, idle: p95", "ms", ms(waits.quantile(0.95)))
	return nil
}

// receiver is the caller's endpoint. It takes every event and counts.
type receiver struct {
	web  *http.Server
	port int

	mu   sync.Mutex
	n    int
	last time.Time
}

func listen(ctx context.Context) (*receiver, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr, _ := l.Addr().(*net.TCPAddr)
	r := &receiver{port: addr.Port}
	r.web = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	go func() { _ = r.web.Serve(l) }()
	return r, nil
}

// ServeHTTP takes the events of deliveries, and ignores others.
func (r *receiver) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(req.Body)
	var event struct{ Type string }
	if err != nil || json.Unmarshal(body, &event) != nil || event.Type != "message.delivered" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n, r.last = r.n+1, at
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *receiver) latest() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *receiver) close() { _ = r.web.Close() }
