package mailgun

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mailgun/mailgun-go/v4"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// call makes one call that changes no message, with a form if there is one, and reads the JSON of the answer. mailgun-go
// is not asked: it leaves the subaccount out of every call but the sending, has no call for the signing key, and its
// iterator over events fails on a name that it does not know and follows whatever URL the answer names.
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

// failed judges such a call: nil for a success, else Throttled or Transient where it may be made again, and Misconfigured.
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
