package mailgun

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	mailgun "github.com/mailgun/mailgun-go/v4"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/provider/mime"
)

// The interfaces that Client has besides provider.Provider.
var (
	_ provider.EventParser = (*Client)(nil)
	_ provider.Finder      = (*Client)(nil)
	_ provider.Registrar   = (*Client)(nil)
)

// Client sends through one domain, and reads the events of its messages. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *esphttp.Client
	api  *mailgun.MailgunImpl
}

// The engine finds these by a type assertion.
var (
	_ provider.EventParser   = (*Client)(nil)
	_ provider.HeaderChecker = (*Client)(nil)
	_ provider.Finder        = (*Client)(nil)
	_ provider.Registrar     = (*Client)(nil)
)

// New makes a Client.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = Spec().Concurrency
	}
	secrets := append(cfg.signingKeys(), cfg.APIKey)
	hc := esphttp.New(esphttp.Options{Concurrency: cfg.Concurrency, Secrets: secrets, BaseURL: cfg.BaseURL, Reach: cfg.Reach})
	api := mailgun.NewMailgun(cfg.Domain, cfg.APIKey.Reveal())
	api.SetClient(hc.HTTP()) // the default would be http.DefaultClient, which never times out
	api.SetAPIBase(cfg.apiBase())
	if cfg.Subaccount != "" {
		api.SetOnBehalfOfSubaccount(cfg.Subaccount)
	}
	return &Client{cfg: cfg, http: hc, api: api}, nil
}

// Close implements provider.Provider.
func (c *Client) Close() error { return c.http.Close() }

// Send implements provider.Provider: POST /v3/{domain}/messages.mime. Mailgun accepts or refuses a message as a whole.
func (c *Client) Send(ctx context.Context, s *provider.Send) (provider.Receipt, error) {
	p, perr := c.parcel(s)
	if perr != nil {
		perr.Detail = c.http.Scrub(perr.Detail)
		return provider.Receipt{}, perr
	}
	ctx, tr := esphttp.Track(ctx)
	_, _, err := c.api.Send(ctx, p)
	switch {
	case tr.Requests() == 0 && err != nil: // mailgun-go refused it
		return provider.Receipt{}, &provider.Error{Class: provider.Rejected, Detail: c.http.Scrub(err.Error())}
	case tr.Status() == 0:
		return provider.Receipt{}, c.http.Fail(tr, err)
	}
	// The answer is read from the trace: mailgun-go keeps no header, and it keeps nothing of a 200 that is not JSON.
	a := answer{status: tr.Status(), header: tr.Header(), body: tr.Body(), cut: cutShort(err)}
	return c.judge(a, s, time.Now())
}

// judge turns an answer into a receipt or an error, with scrubbed texts.
func (c *Client) judge(a answer, s *provider.Send, now time.Time) (provider.Receipt, error) {
	receipt, perr := a.verdict(s, now)
	if perr == nil {
		receipt.Detail = c.http.Scrub(receipt.Detail)
		return receipt, nil
	}
	perr.Detail = c.http.Scrub(perr.Detail)
	for i := range perr.Refused {
		perr.Refused[i].Detail = c.http.Scrub(perr.Refused[i].Detail)
	}
	return provider.Receipt{}, perr
}

// cutShort returns an error if the reading of an answer was cut short. It returns nil if the answer was read completely: then
// mailgun-go's error is about its status or its JSON.
func cutShort(err error) error {
	var (
		status *mailgun.UnexpectedResponseError
		syntax *json.SyntaxError
		typ    *json.UnmarshalTypeError
	)
	if err == nil || errors.As(err, &status) || errors.As(err, &syntax) || errors.As(err, &typ) {
		return nil
	}
	return errors.New("the answer was cut short")
}

// parcel makes mailgun-go's message. It refuses a message over Mailgun's caps: routing does not check a pinned account.
func (c *Client) parcel(s *provider.Send) (*mailgun.Message, *provider.Error) {
	facts := s.Message.Facts()
	facts.Recipients = len(s.Envelope())
	if why := c.cfg.Capabilities().Refuse(&facts); why != "" {
		return nil, overCap(why)
	}
	raw, err := mime.Build(s.Message)
	if err != nil {
		return nil, &provider.Error{Class: provider.Rejected, Detail: "mailgun: " + err.Error()}
	}
	if len(raw) > maxBytes {
		return nil, overCap(fmt.Sprintf("message of %d bytes is over the cap of %d", len(raw), maxBytes))
	}
	p := mailgun.NewMIMEMessage(io.NopCloser(bytes.NewReader(raw)), envelope(s))
	size := c.options(p)
	for _, tag := range tags(s.Message) {
		size += len("o:tag") + len(tag)
		if err := p.AddTag(tag); err != nil {
			return nil, overCap(err.Error())
		}
	}
	for name, value := range variables(s.Message) {
		size += len("v:") + len(name) + len(value)
		if err := p.AddVariable(name, value); err != nil {
			return nil, overCap(err.Error())
		}
	}
	if size > maxParameters {
		return nil, overCap(fmt.Sprintf("parameters of %d bytes are over the cap of %d", size, maxParameters))
	}
	return p, nil
}

func overCap(why string) *provider.Error {
	return &provider.Error{Class: provider.Rejected, Detail: "mailgun: " + why, Elsewhere: true}
}

// envelope lists the bare addresses of all recipients in one field, separated by commas ("Messages", parameter to). mailgun-go
// would make a form part for each, and many servers do not accept a form of a thousand parts.
func envelope(s *provider.Send) string {
	all := s.Envelope()
	to := make([]string, 0, len(all))
	for _, a := range all {
		to = append(to, a.Email)
	}
	return strings.Join(to, ", ")
}

// options sets the overrides of the account and returns their size in bytes. SetTrackingOptions is not used: it sends an
// empty o:tracking-clicks.
func (c *Client) options(p *mailgun.Message) int {
	size := 0
	if c.cfg.TestMode {
		p.EnableTestMode()
		size += len("o:testmodeyes")
	}
	if v := c.cfg.Tracking.Opens; v != nil {
		p.SetTrackingOpens(*v)
		size += len("o:tracking-opensyes")
	}
	if v := c.cfg.Tracking.Clicks; v != nil {
		p.SetTrackingClicks(*v)
		size += len("o:tracking-clicksyes")
	}
	return size
}

// tags are the first three tags that Mailgun accepts: ASCII, at most 128 characters. The caller adds them one by one, because
// mailgun-go checks the number only before it adds.
func tags(m *mail.Message) []string {
	var out []string
	for _, tag := range m.Tags {
		visible := !strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r > '~' })
		if tag != "" && len(tag) <= maxTagLen && visible && len(out) < maxTags {
			out = append(out, tag)
		}
	}
	return out
}

// variables is the caller's metadata and our id. Recipients can read all of it in the header X-Mailgun-Variables.
func variables(m *mail.Message) map[string]string {
	out := make(map[string]string, len(m.Metadata)+1)
	for k, v := range m.Metadata {
		out[k] = v
	}
	out[provider.MessageKey] = m.ID.String()
	return out
}

// call makes one call that changes no message, with a form if there is one, and reads the JSON of the answer. It does not use
// mailgun-go: that omits the subaccount from every call except the sending, and has no call for the signing key. Its iterator
// over events fails on an unknown name, and follows any URL in the answer.
func (c *Client) call(ctx context.Context, method, address string, form url.Values, into any) *provider.Error {
	kind := ""
	if form != nil {
		kind = "application/x-www-form-urlencoded"
	}
	return c.do(ctx, method, address, kind, strings.NewReader(form.Encode()), into)
}

// callJSON is call with a JSON body.
func (c *Client) callJSON(ctx context.Context, method, address string, in, into any) *provider.Error {
	body, err := json.Marshal(in)
	if err != nil {
		return &provider.Error{Class: provider.Misconfigured, Detail: c.http.Scrub("encode request: " + err.Error())}
	}
	return c.do(ctx, method, address, "application/json", bytes.NewReader(body), into)
}

// do makes the call with any body, and reads the JSON of a success into its last argument.
func (c *Client) do(ctx context.Context, method, address, kind string, content io.Reader, into any) *provider.Error {
	ctx, tr := esphttp.Track(ctx)
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return c.failed(tr, err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.SetBasicAuth("api", c.cfg.APIKey.Reveal())
	if c.cfg.Subaccount != "" {
		req.Header.Set(mailgun.OnBehalfOfHeader, c.cfg.Subaccount)
	}
	resp, err := c.http.HTTP().Do(req)
	if err != nil {
		return c.failed(tr, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 == 2 {
		err = json.Unmarshal(body, into)
	}
	return c.failed(tr, err)
}

// failed judges such a call: nil for a success, Throttled or Transient if it may be made again, else Misconfigured.
func (c *Client) failed(tr *esphttp.Trace, err error) *provider.Error {
	status := tr.Status()
	if status == 0 || status/100 == 2 && cutShort(err) != nil {
		perr := c.http.Fail(tr, err)
		if perr.Class == provider.Uncertain {
			perr.Class = provider.Transient
		}
		return perr
	}
	if status/100 == 2 && err == nil {
		return nil
	}
	var got said
	text := plain(tr.Body())
	if json.Unmarshal(tr.Body(), &got) == nil {
		text = cmp.Or(got.Message, got.Reason, text)
	}
	perr := &provider.Error{Class: provider.Misconfigured, Status: status, Detail: c.http.Scrub(text)}
	if status/100 == 2 {
		perr.Detail = "mailgun: not an answer of its API; check base_url and domain"
		return perr
	}
	switch {
	case status == http.StatusTooManyRequests:
		perr.Class, perr.RetryAfter = provider.Throttled, esphttp.RetryAfter(tr.Header(), time.Now())
	case status >= 500, esphttp.ByStatus(status) == provider.Transient:
		perr.Class = provider.Transient
	}
	return perr
}
