package postmark

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
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

// Send implements provider.Provider: POST /email. Recipients that Postmark has suppressed come back in Receipt.Refused
// when others are left, and as BadRecipient when none is.
func (c *Client) Send(ctx context.Context, s *provider.Send) (provider.Receipt, error) {
	if perr := refuse(s); perr != nil {
		return provider.Receipt{}, perr
	}
	ctx, tr := esphttp.Track(ctx)
	req, err := c.request(ctx, s)
	if err != nil {
		return provider.Receipt{}, &provider.Error{Class: provider.Rejected, Detail: c.http.Scrub(err.Error()), Elsewhere: true}
	}
	resp, err := c.http.HTTP().Do(req)
	if err != nil {
		return provider.Receipt{}, c.http.Fail(tr, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing hangs on it once the body was read
	body, err := io.ReadAll(resp.Body)
	return c.judge(answer{status: resp.StatusCode, header: resp.Header, body: body, cut: err}, s, time.Now())
}

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

func (c *Client) request(ctx context.Context, s *provider.Send) (*http.Request, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // six bytes for each < would count against the size cap
	if err := enc.Encode(build(c.cfg, s)); err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	body.Truncate(body.Len() - 1) // Encode ends with a newline
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.endpoint(), &body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	c.authorize(req)
	return req, nil
}

// refuse answers for Postmark where its caps are known, for messages that routing did not check (a pinned account).
func refuse(s *provider.Send) *provider.Error {
	facts := s.Message.Facts()
	facts.Recipients = len(s.Envelope())
	why := Spec().Capabilities.Refuse(&facts)
	if why == "" {
		return nil
	}
	return &provider.Error{Class: provider.Rejected, Detail: provider.Cut("postmark: " + why), Elsewhere: true}
}
