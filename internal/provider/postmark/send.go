package postmark

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// Client sends through one Postmark server. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *esphttp.Client
}

// The engine finds these by a type assertion.
var (
	_ provider.EventParser   = (*Client)(nil)
	_ provider.HeaderChecker = (*Client)(nil)
	_ provider.Finder        = (*Client)(nil)
	_ provider.Registrar     = (*Client)(nil)
	_ provider.Batcher       = (*Client)(nil)
)

// New makes a Client.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = Spec().Concurrency
	}
	hc := esphttp.New(esphttp.Options{Concurrency: cfg.Concurrency, BaseURL: cfg.BaseURL, Reach: cfg.Reach, Secrets: []seal.Secret{
		cfg.ServerToken, cfg.WebhookPassword, cfg.WebhookPasswordPrevious, cfg.WebhookToken, cfg.WebhookTokenPrevious,
	}})
	return &Client{cfg: cfg, http: hc}, nil
}

// Close implements provider.Provider.
func (c *Client) Close() error { return c.http.Close() }

// Send implements provider.Provider: POST /email. If some recipients are suppressed at Postmark, they are in Receipt.Refused. If
// all are, the error is BadRecipient.
func (c *Client) Send(ctx context.Context, s *provider.Send) (provider.Receipt, error) {
	if perr := Spec().Refuse(s); perr != nil {
		return provider.Receipt{}, perr
	}
	a, err := c.post(ctx, "/email", build(c.cfg, s))
	if err != nil {
		return provider.Receipt{}, err
	}
	return c.judge(a, s, time.Now())
}

// post makes one call that sends. An error is an *Error: there was no answer.
func (c *Client) post(ctx context.Context, path string, body any) (answer, error) {
	ctx, tr := esphttp.Track(ctx)
	req, err := esphttp.JSON(ctx, http.MethodPost, c.cfg.host()+path, c.header(), body)
	if err != nil {
		return answer{}, &provider.Error{Class: provider.Rejected, Detail: c.http.Scrub(err.Error()), Elsewhere: true}
	}
	a, err := c.http.Ask(req)
	if err != nil {
		return answer{}, c.http.Fail(tr, err)
	}
	return answer(a), nil
}

// Batch implements provider.Batcher.
func (c *Client) Batch() provider.BatchSpec {
	return provider.BatchSpec{Max: cmp.Or(c.cfg.BatchSize, Spec().Batch.Max)}
}

// SendBatch implements provider.Batcher: POST /email/batch. Its answer has a result for each message, in order. Each is judged as
// the answer to a call of its own.
func (c *Client) SendBatch(ctx context.Context, all []*provider.Send) []provider.Outcome {
	outcomes, emails := make([]provider.Outcome, len(all)), make([]*email, 0, len(all))
	for i, s := range all {
		if perr := Spec().Refuse(s); perr != nil {
			outcomes[i] = provider.Outcome{Err: perr, LeftOut: true}
			continue
		}
		emails = append(emails, build(c.cfg, s))
	}
	if len(emails) == 0 {
		return outcomes
	}
	a, err := c.post(ctx, "/email/batch", emails)
	if err != nil {
		return provider.ForAll(outcomes, err, false)
	}
	answers, whole := a.each(len(emails))
	for i, s := range all {
		if outcomes[i].Err != nil { // it was not in the call
			continue
		}
		receipt, err := c.judge(answers[0], s, time.Now())
		if whole {
			return provider.ForAll(outcomes, err, false)
		}
		outcomes[i] = provider.Outcome{Receipt: receipt, Err: err}
		answers = answers[1:]
	}
	return outcomes
}

// judge turns an answer into a receipt or an error, with scrubbed texts.
func (c *Client) judge(a answer, s *provider.Send, now time.Time) (provider.Receipt, error) {
	receipt, perr := a.verdict(s, now)
	if perr == nil {
		receipt.Detail = c.http.Scrub(receipt.Detail)
		c.scrub(receipt.Refused)
		return receipt, nil
	}
	perr.Detail = c.http.Scrub(perr.Detail)
	c.scrub(perr.Refused)
	return provider.Receipt{}, perr
}

func (c *Client) scrub(refused []provider.Refusal) {
	for i := range refused {
		refused[i].Detail = c.http.Scrub(refused[i].Detail)
	}
}

// header holds the headers without which Postmark answers 401 or 415.
func (c *Client) header() http.Header {
	return http.Header{
		"Accept": {"application/json"}, "Content-Type": {"application/json"}, "X-Postmark-Server-Token": {c.cfg.ServerToken.Reveal()},
	}
}

// call makes one call that can be repeated without harm. It sends in as JSON unless that is nil, and reads the answer into out.
// Target is a path with its query.
func (c *Client) call(ctx context.Context, method, target string, in, out any) error {
	return c.http.Do(ctx, esphttp.Query{
		Method: method, URL: c.cfg.host() + target, Header: c.header(), In: in,
		Judge: func(a esphttp.Answer) error {
			_, err := c.judge(answer(a), &provider.Send{}, time.Now())
			return err
		},
	}, out)
}
