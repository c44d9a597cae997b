package postmark

import (
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
	ctx, tr := esphttp.Track(ctx)
	req, err := esphttp.JSON(ctx, http.MethodPost, c.cfg.endpoint(), c.header(), build(c.cfg, s))
	if err != nil {
		return provider.Receipt{}, &provider.Error{Class: provider.Rejected, Detail: c.http.Scrub(err.Error()), Elsewhere: true}
	}
	a, err := c.http.Ask(req)
	if err != nil {
		return provider.Receipt{}, c.http.Fail(tr, err)
	}
	return c.judge(answer(a), s, time.Now())
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
