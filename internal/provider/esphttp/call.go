package esphttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/sendgate/sendgate/internal/provider"
)

// Answer is a provider's response to one call.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Cut    error // the error that ended the body early, or nil
}

// Ask makes the request and reads the whole response. Its error, for Fail, means that there was no response.
func (c *Client) Ask(req *http.Request) (Answer, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err //nolint:wrapcheck // Fail looks into it
	}
	defer resp.Body.Close() //nolint:errcheck // the body was read
	body, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body, Cut: err}, nil
}

// JSON makes a request with the header, and with in as its body unless that is nil.
func JSON(ctx context.Context, method, url string, header http.Header, in any) (*http.Request, error) {
	var body bytes.Buffer
	if in != nil {
		enc := json.NewEncoder(&body)
		enc.SetEscapeHTML(false) // six bytes for each < would count against the size cap
		if err := enc.Encode(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body.Truncate(body.Len() - 1) // Encode ends with a newline
	}
	req, err := http.NewRequestWithContext(ctx, method, url, &body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header = header
	return req, nil
}

// Query is a call that can be repeated without harm, for look-ups and registration.
type Query struct {
	Method, URL string
	Header      http.Header
	In          any                // the body as JSON, nil for none
	Judge       func(Answer) error // returns the *provider.Error of an answer that is not a success
}

// Do makes the call and reads the JSON of a success into out. An error is a *provider.Error and never Uncertain: if it is not
// known whether the provider took the call, it should be repeated.
func (c *Client) Do(ctx context.Context, q Query, out any) error {
	ctx, tr := Track(ctx)
	req, err := JSON(ctx, q.Method, q.URL, q.Header, q.In)
	if err != nil {
		return &provider.Error{Class: provider.Misconfigured, Detail: c.Scrub(err.Error())}
	}
	a, err := c.Ask(req)
	if err != nil {
		return repeatable(c.Fail(tr, err))
	}
	if a.Status < 200 || a.Status > 299 {
		return repeatable(q.Judge(a))
	}
	err = a.Cut
	if err == nil {
		err = json.Unmarshal(a.Body, out)
	}
	if err != nil {
		return &provider.Error{Class: provider.Transient, Status: a.Status, Detail: NotTheirs, Err: err}
	}
	return nil
}

// repeatable turns Uncertain into Transient.
func repeatable(err error) error {
	if perr, ok := errors.AsType[*provider.Error](err); ok && perr.Class == provider.Uncertain {
		perr.Class = provider.Transient
	}
	return err
}

// LookupError turns the class of an error into one of the three that a provider.Finder may return.
func LookupError(err error) error {
	perr, ok := errors.AsType[*provider.Error](err)
	if ok && perr.Class != provider.Throttled && perr.Class != provider.Transient {
		perr.Class = provider.Misconfigured
	}
	return err
}
