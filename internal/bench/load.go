package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/api"
)

// letters makes messages of one template: 3.8 kB as JSON, most of it HTML, which is what an order confirmation has. The parts
// are joined by what differs.
type letters struct{ parts [][]byte }

// letterItems is how many things each letter lists.
var letterItems = 12

const letterMark = "n-u-m-b-e-r"

// newLetters makes letters that differ in recipient and subject, as an order confirmation does.
func newLetters() (letters, error) { return lettersAbout("Your order "+letterMark, nil) }

// pinned makes such letters for one account.
func pinned(account string) func() (letters, error) {
	return func() (letters, error) { return lettersAbout("Your order "+letterMark, &account) }
}

// newCampaign makes letters that differ in the recipient only.
func newCampaign() (letters, error) { return lettersAbout("Our offers", nil) }

func lettersAbout(subject string, account *string) (letters, error) {
	var html strings.Builder
	html.WriteString("<html><body><table width=600><tr><td><img src=https://shop.example.com/logo.png></td></tr>")
	for i := range letterItems {
		fmt.Fprintf(&html, "<tr><td style=\"font-family:Helvetica,Arial;font-size:14px;color:#333333;padding:8px 0\">Item %d of your order: "+
			"a thing of size %d, colour %06x, which we ship within %d days</td><td align=right>%d.%02d EUR</td></tr>", i+1, 36+i, i*7919%0xffffff, 1+i%5, 10+i*3, i*7%100)
	}
	html.WriteString("</table><p>Thank you for your order.</p></body></html>")
	m := api.SendRequest{
		From: api.Address{Email: "shop@example.com", Name: "Example Shop"}, To: []api.Address{{Email: letterMark + "@example.org"}},
		Subject: subject, Text: strings.Repeat("Thank you for your order. We ship it soon. ", 8), HTML: html.String(),
		Account: account, Stream: "transactional", Tags: []string{"order"}, Metadata: map[string]string{"order": "12345"},
	}
	text, err := json.Marshal(m)
	return letters{bytes.Split(text, []byte(letterMark))}, err
}

// one is the letter to a local part.
func (l letters) one(local string) []byte {
	return bytes.Join(l.parts, []byte(local))
}

// batch is the body of a batch of n letters.
func (l letters) batch(n int, first int64) []byte {
	var b bytes.Buffer
	b.WriteString(`{"messages":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(l.one(fmt.Sprintf("customer-%d", first+int64(i))))
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// load is a series of POST requests over keep-alive connections, each with one request at a time.
type load struct {
	url, key string
	clients  int
	duration time.Duration                // how long, if requests is 0
	requests int64                        // how many, if not 0
	rate     float64                      // requests to offer a second; 0: as fast as they are answered
	body     func(n int64) []byte         // of request n
	header   func(h http.Header, n int64) // may be nil
}

// result is what became of a load.
type result struct {
	answered int64 // with 2xx
	took     time.Duration
	waits    []time.Duration // sorted. With a rate, each counts from when the request was due: a stall is not hidden
}

func (r result) rate() float64 { return float64(r.answered) / r.took.Seconds() }

func (r result) quantile(q float64) time.Duration {
	if len(r.waits) == 0 {
		return 0
	}
	return r.waits[int(q*float64(len(r.waits)-1))]
}

// run returns an error if a request fails or is answered with anything but 2xx.
func (l load) run(ctx context.Context) (result, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: l.clients, MaxConnsPerHost: l.clients}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	var next atomic.Int64
	waits := make([][]time.Duration, l.clients)
	var all sync.WaitGroup
	for c := range l.clients {
		all.Go(func() {
			for {
				n := next.Add(1)
				if l.requests > 0 && n > l.requests || l.requests == 0 && time.Since(began) > l.duration {
					return
				}
				due := time.Now()
				if l.rate > 0 {
					due = began.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
					if wait := time.Until(due); wait > 0 {
						pause(ctx, wait)
					}
				}
				if err := l.post(ctx, client, n); err != nil {
					cancel(err)
					return
				}
				waits[c] = append(waits[c], time.Since(due))
			}
		})
	}
	all.Wait()
	r := result{took: time.Since(began), waits: slices.Concat(waits...)}
	slices.Sort(r.waits)
	r.answered = int64(len(r.waits))
	return r, context.Cause(ctx)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (l load) post(ctx context.Context, client *http.Client, n int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(l.body(n)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+l.key)
	if l.header != nil {
		l.header(req.Header, n)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s: %.300s", l.url, resp.Status, text)
	}
	return nil
}
