package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/sendgate/sendgate/internal/seal"
)

type loadCmd struct {
	Messages    int           `short:"n" xor:"until" help:"Stop after this many messages."`
	Duration    time.Duration `short:"d" xor:"until" help:"Stop after this time (default 10s when --messages is not given)."`
	Concurrency int           `short:"c" default:"0" help:"Number of connections, each with one call at a time. 0 means 64, or fewer if their calls would have more than 2,048 messages."`
	Batch       int           `default:"1" help:"Messages per call; above 1 the calls go to /v1/send/batch."`
	Rate        float64       `placeholder:"N" help:"Messages per second to offer. 0 means as fast as the server answers."`
	Size        int           `default:"5120" help:"Bytes of text in each message."`
	ToDomain    string        `default:"example.org" help:"Domain of the recipients."`
	From        string        `default:"load@example.com" help:"Sender."`
	Account     string        `help:"Pin all messages to this account."`
	Stream      string        `help:"Stream of the messages."`
	Timeout     time.Duration `default:"30s" help:"Longest wait for one answer."`
	Wait        bool          `help:"Also wait until the queue is empty again, and report the messages sent per second. Needs the admin key."`
	WaitTimeout time.Duration `default:"10m" help:"How long --wait waits at most."`
	IDs         string        `name:"ids" placeholder:"FILE" help:"Append the id of each accepted message to this file; it is on disk within 100 ms of its 202."`
	IMeanIt     bool          `help:"Required if the server is not this machine: its accounts may send real mail."`
	JSON        bool          `name:"json" help:"Print the result as JSON."`
}

// Help implements kong.HelpProvider.
func (*loadCmd) Help() string {
	return `Sends generated messages over keep-alive connections and measures how fast the server accepts them. Latency counts from the start of the call. ` +
		`With --rate it counts from the time when the call was due, so that a stall of the server shows.

All messages have one tag, which is printed at the end; "sendgate messages list --tag" finds them by it. The exit code is 1 if any message was not accepted.

Examples:

  sendgate load --messages 10000
  sendgate load --duration 30s --concurrency 32 --batch 100
  sendgate load --duration 1m --rate 500 --wait --json
  sendgate load --messages 5000 --account ses --ids accepted.txt`
}

// Run implements the command.
func (c *loadCmd) Run(ctx context.Context, s *Streams) error {
	t, err := s.target()
	if err != nil {
		return err
	}
	plan, err := c.plan(t)
	if err != nil {
		return err
	}
	ids, err := openIDLog(s, c.IDs)
	if err != nil {
		return err
	}
	g := &generator{plan: plan, ids: ids, errors: map[string]int64{}}
	result, runErr := c.measure(ctx, s, g)
	if err := ids.close(); err != nil && runErr == nil {
		runErr = err
	}
	if runErr != nil && result == nil {
		return runErr
	}
	if err := result.print(s, c.JSON); err != nil {
		return err
	}
	if runErr != nil {
		return runErr
	}
	return result.verdict()
}

// measure generates the load, and waits for the queue if --wait is set.
func (c *loadCmd) measure(ctx context.Context, s *Streams, g *generator) (*loadResult, error) {
	var q *queueWatch
	if c.Wait {
		var err error
		if q, err = watchQueue(ctx, s); err != nil {
			return nil, err
		}
	}
	p := startProgress(s.Err, g.progressLine())
	began := time.Now()
	g.run(ctx)
	result := g.result(time.Since(began))
	p.stop()
	if ctx.Err() != nil {
		result.Interrupted = true
		return result, nil
	}
	if q != nil {
		ctx, cancel := context.WithTimeout(ctx, c.WaitTimeout)
		defer cancel()
		return result, q.drain(ctx, s.Err, began, result)
	}
	return result, nil
}

// loadPlan is a checked loadCmd.
type loadPlan struct {
	server   *url.URL
	key      seal.Secret
	tag      string
	messages int64         // 0: no bound
	duration time.Duration // 0: no bound
	cmd      *loadCmd
}

// plan checks the flags and sets the defaults.
func (c *loadCmd) plan(t target) (loadPlan, error) {
	server, err := url.Parse(t.url)
	if err != nil || server.Host == "" || (server.Scheme != "http" && server.Scheme != "https") {
		return loadPlan{}, usagef("SENDGATE_URL is not an http address: %q", t.url)
	}
	switch {
	case t.apiKey.IsZero():
		return loadPlan{}, errNoAPIKey
	case !c.IMeanIt && !isLoopback(server.Hostname()):
		return loadPlan{}, usagef("%s is not this machine, so its accounts may send real mail to %s: add --i-mean-it if you want that",
			server.Host, c.ToDomain)
	case c.Messages < 0 || c.Duration < 0 || c.Rate < 0 || c.Size < 0:
		return loadPlan{}, usagef("--messages, --duration, --rate and --size can't be negative")
	case c.Batch < 1 || c.Batch > 1000:
		return loadPlan{}, usagef("--batch must be 1 to 1000, got %d", c.Batch)
	case c.Concurrency < 0 || c.Concurrency > 10_000:
		return loadPlan{}, usagef("--concurrency must be 0 to 10000, got %d", c.Concurrency)
	}
	if c.Concurrency == 0 { // half of a server's default accept queue: a load test should not begin with 503s
		c.Concurrency = max(min(64, 2048/c.Batch), 1)
	}
	p := loadPlan{
		server: server, key: t.apiKey, tag: "load-" + randomHex(4),
		messages: int64(c.Messages), duration: c.Duration, cmd: c,
	}
	if p.messages == 0 && p.duration == 0 {
		p.duration = 10 * time.Second
	}
	return p, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never returns an error since Go 1.24
	return hex.EncodeToString(b)
}

// verdict returns the command's error, nil if everything went well.
func (r *loadResult) verdict() error {
	switch {
	case r.Interrupted:
		return fmt.Errorf("interrupted after %d accepted messages", r.Accepted)
	case r.Failed > 0:
		return fmt.Errorf("%d of %d messages were not accepted", r.Failed, r.Failed+r.Accepted)
	case r.Drain != nil && r.Drain.TimedOut:
		return fmt.Errorf("%d messages were still in the queue when --wait-timeout was over", r.Drain.Left)
	}
	return nil
}
