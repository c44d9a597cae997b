package resend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	if perr := refuse(s); perr != nil {
		return provider.Receipt{}, perr
	}
	ctx, tr := esphttp.Track(ctx)
	req, err := c.request(ctx, http.MethodPost, "/emails", build(s))
	if err != nil {
		return provider.Receipt{}, &provider.Error{Class: provider.Rejected, Detail: c.http.Scrub(err.Error()), Elsewhere: true}
	}
	if k := key(s); k != "" {
		req.Header.Set("Idempotency-Key", k)
	}
	resp, err := c.http.HTTP().Do(req)
	if err != nil {
		return provider.Receipt{}, without(c.http.Fail(tr, err), s)
	}
	a := read(resp)
	id := a.acceptance()
	if id == "" {
		return provider.Receipt{}, without(c.failure(a), s)
	}
	return provider.Receipt{ProviderMessageID: provider.Cut(id), Refused: later(s)}, nil
}

// without adds to an error of unknown outcome who was surely not in the call.
func without(perr *provider.Error, s *provider.Send) *provider.Error {
	if perr.Class != provider.Rejected {
		perr.Refused = later(s)
	}
	return perr
}

// refuse answers for Resend where its caps are known, for messages that routing did not check (a pinned account).
func refuse(s *provider.Send) *provider.Error {
	facts := s.Message.Facts()
	facts.Recipients = len(s.Envelope())
	why := Spec().Capabilities.Refuse(&facts)
	if why == "" {
		return nil
	}
	return &provider.Error{Class: provider.Rejected, Detail: provider.Cut("resend: " + why), Elsewhere: true}
}

// request makes a request of the API, with in as its JSON unless that is nil.
func (c *Client) request(ctx context.Context, method, target string, in any) (*http.Request, error) {
	var body bytes.Buffer
	if in != nil {
		enc := json.NewEncoder(&body)
		enc.SetEscapeHTML(false) // six bytes for each < would count against the size cap
		if err := enc.Encode(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body.Truncate(body.Len() - 1) // Encode ends with a newline
	}
	req, err := http.NewRequestWithContext(ctx, method, c.cfg.host()+target, &body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.cfg.APIKey.Reveal())
	req.Header.Set("User-Agent", "sendgate") // Resend turns away requests without one
	return req, nil
}

// call makes one call that may be made again without harm, and reads the answer into out. An error is a *provider.Error
// and never Uncertain: what is not known is asked again.
func (c *Client) call(ctx context.Context, method, target string, in, out any) error {
	ctx, tr := esphttp.Track(ctx)
	req, err := c.request(ctx, method, target, in)
	if err != nil {
		return &provider.Error{Class: provider.Misconfigured, Detail: c.http.Scrub(err.Error())}
	}
	resp, err := c.http.HTTP().Do(req)
	if err != nil {
		return repeatable(c.http.Fail(tr, err))
	}
	a := read(resp)
	if a.status < 200 || a.status > 299 {
		return repeatable(c.failure(a))
	}
	err = a.cut
	if err == nil {
		err = json.Unmarshal(a.body, out)
	}
	if err != nil {
		return &provider.Error{
			Class: provider.Transient, Status: a.status, Detail: esphttp.NotTheirs, Err: err,
		}
	}
	return nil
}

func read(resp *http.Response) answer {
	defer resp.Body.Close() //nolint:errcheck // the body was read
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: body, cut: err}
}

func (c *Client) failure(a answer) *provider.Error {
	perr := a.failure(time.Now())
	perr.Detail = c.http.Scrub(perr.Detail)
	return perr
}

// repeatable turns what may have arrived into what may be tried again.
func repeatable(err error) error {
	var perr *provider.Error
	if errors.As(err, &perr) && perr.Class == provider.Uncertain {
		perr.Class = provider.Transient
	}
	return err
}
