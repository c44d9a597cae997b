package postmark

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
)

// call makes one call that may be made again without harm, with in as its JSON unless that is nil, and reads the answer
// into out. Target is a path with its query. An error is a *provider.Error and never Uncertain: what is not known is
// asked again.
func (c *Client) call(ctx context.Context, method, target string, in, out any) error {
	ctx, tr := esphttp.Track(ctx)
	req, err := c.apiRequest(ctx, method, target, in)
	if err != nil {
		return &provider.Error{Class: provider.Misconfigured, Detail: c.http.Scrub(err.Error())}
	}
	resp, err := c.http.HTTP().Do(req)
	if err != nil {
		return repeatable(c.http.Fail(tr, err))
	}
	defer resp.Body.Close() //nolint:errcheck // nothing hangs on it once the body was read
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		_, err = c.judge(answer{status: resp.StatusCode, header: resp.Header, body: body, cut: err}, &provider.Send{}, time.Now())
		return repeatable(err)
	}
	if err == nil {
		err = json.Unmarshal(body, out)
	}
	if err != nil {
		return &provider.Error{
			Class: provider.Transient, Status: resp.StatusCode, Detail: esphttp.NotTheirs, Err: err,
		}
	}
	return nil
}

func (c *Client) apiRequest(ctx context.Context, method, target string, in any) (*http.Request, error) {
	body := []byte{}
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.cfg.host()+target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	c.authorize(req)
	return req, nil
}

// authorize sets the headers without which Postmark answers 401, or 415.
func (c *Client) authorize(req *http.Request) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Postmark-Server-Token", c.cfg.ServerToken.Reveal())
}

// repeatable turns what may have arrived into what may be tried again.
func repeatable(err error) error {
	var perr *provider.Error
	if errors.As(err, &perr) && perr.Class == provider.Uncertain {
		perr.Class = provider.Transient
	}
	return err
}
