//go:build drill

package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/httpapi"
)

// servedWithin is how soon a request with a valid key is answered, whatever strangers do. The test shares the machine with
// the strangers, so a later answer is only logged, and a missing one is an error.
const servedWithin = time.Second

// Strangers attack from one address, or from many. Requests with a valid key are answered within a second, a webhook is
// taken, and a link works.
func TestStrangersHoldUpNobody(t *testing.T) {
	b := newBench(t, benchOptions{})
	r := b.start(t)
	h := newHerald(t, b, r)
	addr := strings.TrimPrefix(r.url, "http://")
	few := func(i int) string { return fmt.Sprintf("127.0.1.%d", 1+i%64) }
	one := func(int) string { return "127.0.0.1" }
	const half = "POST /v1/send HTTP/1.1\r\nHost: x\r\n"
	slow := func(path, more string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + more + "Content-Length: 1000000\r\n\r\n["
	}
	for _, c := range []struct {
		name   string
		source func(int) string
		n      int
		begin  string
	}{
		{"idle connections of one address", one, httpapi.MaxConns, ""},
		{"idle connections of 64 addresses", few, httpapi.MaxConns, ""},
		{"connections of one address after a request", one, httpapi.MaxConns, "GET /v1/messages HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"half a header of one address", one, httpapi.MaxConns, half},
		{"slow bodies at /hooks", one, 256, slow("/hooks/mailgun", "")},
		{"slow bodies at /hooks of 64 addresses", few, 256, slow("/hooks/mailgun", "")},
		{"slow bodies at /hooks that brings a signature", one, 256, slow("/hooks/sendgrid",
			"X-Twilio-Email-Event-Webhook-Signature: AAAA\r\nX-Twilio-Email-Event-Webhook-Timestamp: "+fmt.Sprint(time.Now().Unix())+"\r\n")},
		{"refused bodies that drip", one, 2048, slow("/v1/send", "")},
		{"stalled uploads of another tenant", one, 3, "upload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := c.begin
			if begin == "upload" {
				begin = b.upload(t, r)
			}
			release := hold(t, addr, c.source, c.n, begin)
			defer release()
			b.served(t, r, h, "127.0.0.2")
		})
	}
	t.Run("forged keys", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var forged atomic.Int64
		var all sync.WaitGroup
		for range 256 {
			all.Go(func() {
				client := clientFrom("127.0.0.1")
				defer client.CloseIdleConnections()
				for ctx.Err() == nil {
					_, key, _ := httpapi.NewKey()
					_, err := api.NewWith(r.url, key, client).Messages(ctx, api.MessageQuery{})
					if err == nil {
						t.Error("a forged key was taken")
					}
					forged.Add(1)
				}
			})
		}
		b.served(t, r, h, "127.0.0.2")
		b.served(t, r, h, "127.0.0.1")
		cancel()
		all.Wait()
		t.Logf("%d forged keys", forged.Load())
	})
}

// upload is the beginning of a large message, of a tenant made for it.
func (b *bench) upload(t *testing.T, r *replica) string {
	t.Helper()
	if _, err := r.admin.CreateTenant(t.Context(), api.TenantRequest{Name: "slow"}); err != nil {
		t.Fatal(err)
	}
	k, err := r.admin.CreateKey(t.Context(), api.KeyRequest{Tenant: "slow", Name: "slow", Scopes: []string{"send"}})
	if err != nil {
		t.Fatal(err)
	}
	return "POST /v1/send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + k.Secret +
		"\r\nContent-Length: 22000000\r\n\r\n" + strings.Repeat(" ", 1<<20)
}

// hold opens connections, and again when they are closed, until it is released.
func hold(t *testing.T, addr string, source func(int) string, n int, begin string) (release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var open atomic.Int64
	for i := range n {
		all.Go(func() {
			d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source(i))}}
			for ctx.Err() == nil {
				if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
					stop := context.AfterFunc(ctx, func() { _ = c.Close() })
					_, _ = io.WriteString(c, begin)
					open.Add(1)
					_, _ = io.Copy(io.Discard, c)
					open.Add(-1)
					stop()
					_ = c.Close()
				}
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
		})
	}
	pause(t, 3*time.Second)
	t.Logf("%d connections are held", open.Load())
	return func() { cancel(); all.Wait() }
}

func clientFrom(source string) *http.Client {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext}, Timeout: 10 * time.Second}
}

// served sends small and large mail from an address, each over a new connection, and checks that each event and link is
// answered.
func (b *bench) served(t *testing.T, r *replica, h *herald, source string) {
	t.Helper()
	client := clientFrom(source)
	var took []time.Duration
	late := 0
	timed := func(what string, f func() error) {
		t.Helper()
		began := time.Now()
		err := f()
		spent := time.Since(began)
		took = append(took, spent)
		if err != nil {
			t.Errorf("%s from %s: %v after %s", what, source, err, spent.Round(time.Millisecond))
		}
		if spent > servedWithin {
			late++
		}
		client.CloseIdleConnections()
	}
	c := api.NewWith(r.url, b.keys.api, client)
	for i := range 10 {
		m := letterTo("mailgun", fmt.Sprintf("ann+%d@example.org", i))
		var id string
		timed("mail", func() error {
			got, err := c.Send(t.Context(), m, "")
			if err == nil {
				id = got.ID
			}
			return err
		})
		m.Text = strings.Repeat("large ", 1<<17)
		if i%5 == 0 {
			timed("large mail", func() error { _, err := c.Send(t.Context(), m, ""); return err })
		}
		q := h.sign(t, "mailgun", told{id: id, to: m.To[0].Email})
		timed("event", func() error { return answers(client, r.url+"/hooks/mailgun", q.header, string(q.body), 200) })
		timed("link", func() error { return answers(client, r.url+"/u/none", nil, "", 404, 429) })
	}
	slices.Sort(took)
	t.Logf("from %s: %d answers, %d of them after more than %s, p50 %s, slowest %s", source, len(took), late, servedWithin,
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// answers posts to a URL and fails if the status is not one of the given ones.
func answers(client *http.Client, url string, header http.Header, body string, want ...int) error {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if !slices.Contains(want, resp.StatusCode) {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
