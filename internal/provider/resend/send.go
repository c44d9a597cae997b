package resend

import (
	"context"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// Client sends with one API key. It is safe for concurrent use.
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
	hc := esphttp.New(esphttp.Options{
		Concurrency: cfg.Concurrency, BaseURL: cfg.BaseURL, Reach: cfg.Reach, KeepIdempotencyKey: true,
		Secrets: []seal.Secret{cfg.APIKey, cfg.WebhookSecret, cfg.WebhookSecretPrevious},
	})
	return &Client{cfg: cfg, http: hc}, nil
}

// Close implements provider.Provider.
func (c *Client) Close() error { return c.http.Close() }

// Send implements provider.Provider: one call to /emails.
func (c *Client) Send(ctx context.Context, s *provider.Send) (provider.Receipt, error) {
	if perr := Spec().Refuse(s); perr != nil {
		return provider.Receipt{}, perr
	}
	header := c.header()
	if k := key(s); k != "" {
		header.Set("Idempotency-Key", k)
	}
	a, perr := c.post(ctx, "/emails", header, build(s))
	if perr != nil {
		return provider.Receipt{}, without(perr, s)
	}
	id := a.acceptance()
	if id == "" {
		return provider.Receipt{}, without(c.failure(a), s)
	}
	return provider.Receipt{ProviderMessageID: provider.Cut(id), Refused: later(s)}, nil
}

// post makes one call that sends. An error means that there was no answer.
func (c *Client) post(ctx context.Context, path string, header http.Header, body any) (answer, *provider.Error) {
	ctx, tr := esphttp.Track(ctx)
	req, err := esphttp.JSON(ctx, http.MethodPost, c.cfg.host()+path, header, body)
	if err != nil {
		return answer{}, &provider.Error{Class: provider.Rejected, Detail: c.http.Scrub(err.Error()), Elsewhere: true}
	}
	got, err := c.http.Ask(req)
	if err != nil {
		return answer{}, c.http.Fail(tr, err)
	}
	return answer(got), nil
}

// without adds the recipients that were surely not in the call to an error, unless the message was rejected.
func without(perr *provider.Error, s *provider.Send) *provider.Error {
	if perr.Class != provider.Rejected {
		perr.Refused = later(s)
	}
	return perr
}

// header holds what every request needs. Resend refuses requests without a User-Agent.
func (c *Client) header() http.Header {
	return http.Header{
		"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"sendgate"},
		"Authorization": {"Bearer " + c.cfg.APIKey.Reveal()},
	}
}

// call makes one call that can be repeated without harm, and reads the answer into out.
func (c *Client) call(ctx context.Context, method, target string, in, out any) error {
	return c.http.Do(ctx, esphttp.Query{
		Method: method, URL: c.cfg.host() + target, Header: c.header(), In: in,
		Judge: func(a esphttp.Answer) error { return c.failure(answer(a)) },
	}, out)
}

func (c *Client) failure(a answer) *provider.Error {
	perr := a.failure(time.Now())
	perr.Detail = c.http.Scrub(perr.Detail)
	return perr
}
