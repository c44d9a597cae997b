package sendgrid

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/sendgrid/rest"
	sdk "github.com/sendgrid/sendgrid-go"
	sgmail "github.com/sendgrid/sendgrid-go/helpers/mail"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// Client sends through one SendGrid account. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *esphttp.Client
	rest *rest.Client // holds nothing but the HTTP client
	keys []*ecdsa.PublicKey
	pace *pace // of look-ups
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
	keys, err := cfg.publicKeys()
	if err != nil {
		return nil, err
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = Spec().Concurrency
	}
	hc := esphttp.New(esphttp.Options{Concurrency: cfg.Concurrency, Secrets: secretsOf(cfg), BaseURL: cfg.BaseURL, Reach: cfg.Reach})
	return &Client{
		cfg: cfg, http: hc, rest: &rest.Client{HTTPClient: hc.HTTP()}, keys: keys, pace: newPace(cmp.Or(cfg.LookupsPerMinute, lookupsPerMinute)),
	}, nil
}

// Close implements provider.Provider.
func (c *Client) Close() error { return c.http.Close() }

// Send implements provider.Provider: POST /v3/mail/send. SendGrid takes all recipients or none. It accepts an address on one of
// its suppression lists, and reports it later as a "dropped" event.
func (c *Client) Send(ctx context.Context, s *provider.Send) (provider.Receipt, error) {
	if perr := refuse(s); perr != nil {
		return provider.Receipt{}, perr
	}
	m := build(c.cfg, s)
	a, err := c.post(ctx, m)
	if err != nil {
		return provider.Receipt{}, err
	}
	return c.judge(a, m, time.Now())
}

// post makes one call that sends. An error is an *Error: there was no answer.
func (c *Client) post(ctx context.Context, m *sgmail.SGMailV3) (answer, error) {
	req, err := c.request(m)
	if err != nil {
		return answer{}, &provider.Error{Class: provider.Rejected, Detail: c.http.Scrub(err.Error()), Elsewhere: true}
	}
	ctx, tr := esphttp.Track(ctx)
	resp, err := c.rest.SendWithContext(ctx, req)
	if resp == nil {
		return answer{}, c.http.Fail(tr, err)
	}
	// The SDK returns both a response and an error when it could not read the whole body.
	return answer{Status: resp.StatusCode, Header: http.Header(resp.Headers), Body: []byte(resp.Body), Cut: err}, nil
}

// judge turns an answer into a receipt or an error, with scrubbed texts.
func (c *Client) judge(a answer, m *sgmail.SGMailV3, now time.Time) (provider.Receipt, error) {
	receipt, perr := a.verdict(m, c.cfg.Sandbox, now)
	if perr == nil {
		return receipt, nil
	}
	return provider.Receipt{}, c.scrubbed(perr)
}

func (c *Client) scrubbed(perr *provider.Error) *provider.Error {
	perr.Code, perr.Detail = c.http.Scrub(perr.Code), c.http.Scrub(perr.Detail)
	for i := range perr.Refused {
		perr.Refused[i].Detail = c.http.Scrub(perr.Refused[i].Detail)
	}
	return perr
}

// call makes one call of the v3 API that can be repeated without harm. It sends in as JSON unless that is nil, and reads the
// answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	header := http.Header{"Authorization": {"Bearer " + c.cfg.APIKey.Reveal()}, "Accept": {"application/json"}}
	if in != nil {
		header.Set("Content-Type", "application/json")
	}
	if c.cfg.Subuser != "" {
		header.Set("On-Behalf-Of", c.cfg.Subuser)
	}
	return c.http.Do(ctx, esphttp.Query{
		Method: method, URL: c.cfg.host() + path, Header: header, In: in,
		Judge: func(a esphttp.Answer) error {
			_, err := c.judge(answer(a), &sgmail.SGMailV3{}, time.Now())
			return err
		},
	}, out)
}

// request is the SDK's own request with our body. The body is encoded here because the SDK's GetRequestBody logs an
// error and sends nothing.
func (c *Client) request(m *sgmail.SGMailV3) (rest.Request, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // six bytes for each < would count against the size cap
	if err := enc.Encode(m); err != nil {
		return rest.Request{}, fmt.Errorf("encode request: %w", err)
	}
	req := sdk.GetRequestSubuser(c.cfg.APIKey.Reveal(), "/v3/mail/send", c.cfg.host(), c.cfg.Subuser)
	req.Method = rest.Post
	req.Headers["Content-Type"] = "application/json"
	req.Body = bytes.TrimSuffix(body.Bytes(), []byte("\n"))
	return req, nil
}

// refuse answers in place of SendGrid for its known caps.
func refuse(s *provider.Send) *provider.Error {
	if perr := Spec().Refuse(s); perr != nil {
		return perr
	}
	if why := repeatedHeader(s.Message.Headers); why != "" {
		return &provider.Error{Class: provider.Rejected, Detail: provider.Cut("sendgrid: " + why), Elsewhere: true}
	}
	return nil
}
