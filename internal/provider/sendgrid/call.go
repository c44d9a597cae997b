package sendgrid

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	sgmail "github.com/sendgrid/sendgrid-go/helpers/mail"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// call makes one call of the v3 API that may be made again without harm, with in as its JSON unless that is nil, and
// reads the answer into out. An error is a *provider.Error and never Uncertain: what is not known is asked again.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, tr := esphttp.Track(ctx)
	req, err := c.apiRequest(ctx, method, path, in)
	if err != nil {
		return &provider.Error{Class: provider.Misconfigured, Detail: c.http.Scrub(err.Error())}
	}
	resp, err := c.http.HTTP().Do(req)
	if err != nil {
		return repeatable(c.http.Fail(tr, err))
	}
	defer resp.Body.Close() //nolint:errcheck // nothing hangs on it once the body was read
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		_, err = c.judge(answer{status: resp.StatusCode, header: resp.Header, body: body, cut: err}, &sgmail.SGMailV3{}, time.Now())
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

func (c *Client) apiRequest(ctx context.Context, method, path string, in any) (*http.Request, error) {
	body := []byte{}
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.cfg.host()+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.cfg.APIKey.Reveal())
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Subuser != "" {
		req.Header.Set("On-Behalf-Of", c.cfg.Subuser)
	}
	return req, nil
}

// repeatable turns what may have arrived into what may be tried again.
func repeatable(err error) error {
	var perr *provider.Error
	if errors.As(err, &perr) && perr.Class == provider.Uncertain {
		perr.Class = provider.Transient
	}
	return err
}
