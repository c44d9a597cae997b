package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client calls one sendgate with one key. It is safe for concurrent use. Every method makes exactly one request: the client
// never repeats a send that may have been accepted. Repeat it yourself under the same idempotency key.
//
// An answer other than 2xx is a *Problem. A request ends with its context, or after 70 s. Methods that stream, import or export
// have only the bound of their context.
type Client struct {
	base string
	key  string
	http *http.Client
}

const (
	clientTimeout = 70 * time.Second // above the server's own 60 s, so that the server's answer is seen
	maxAnswer     = 64 << 20         // bytes
)

// New makes a client of the server at baseURL ("https://send.example.com"). The key is an API key, or an admin key for
// the admin calls.
func New(baseURL, key string) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("new client: base url must be http(s)://host[:port][/path]")
	}
	if u.User != nil || strings.ContainsAny(baseURL, "?#") {
		return nil, errors.New("new client: base url must have no user, query or fragment")
	}
	return NewWith(baseURL, key, &http.Client{Timeout: clientTimeout, CheckRedirect: noRedirects, Transport: transport()}), nil
}

// transport uses the proxy of the environment for https only: with http the proxy could read the key.
func transport() *http.Transport {
	t := &http.Transport{ForceAttemptHTTP2: true}
	if usual, ok := http.DefaultTransport.(*http.Transport); ok {
		t = usual.Clone()
	}
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme != "https" {
			return nil, nil //nolint:nilnil // stands for "no proxy"
		}
		return http.ProxyFromEnvironment(r)
	}
	return t
}

// NewWith makes a client that calls through the given http.Client, as tests do.
func NewWith(baseURL, key string, c *http.Client) *Client {
	return &Client{base: strings.TrimRight(baseURL, "/"), key: key, http: c}
}

// noRedirects follows no redirect, so that the key goes nowhere else. The API never redirects.
func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Error implements error.
func (p *Problem) Error() string {
	s := p.Code
	if s == "" {
		s = "status " + strconv.Itoa(p.Status)
	}
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	for i, f := range p.Errors {
		if i == 3 {
			s += fmt.Sprintf("; and %d more", len(p.Errors)-i)
			break
		}
		s += "; " + f.Field + ": " + f.Message
	}
	return s
}

// call is one request: method, path (already escaped), query, body and headers, and where the answer goes.
type call struct {
	method, path string
	query        url.Values
	body         any
	header       http.Header
	into         any
}

// do makes the request and decodes the answer into c.into, unless it is nil.
func (c *Client) do(ctx context.Context, k call) error {
	req, err := c.request(ctx, k)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("call sendgate: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case len(body) > maxAnswer:
		return errors.New("read answer: longer than 64 MiB")
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return problemOf(resp, body)
	case k.into == nil || resp.StatusCode == http.StatusNoContent:
		return nil
	}
	if err := json.Unmarshal(body, k.into); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// request builds the HTTP request of a call.
func (c *Client) request(ctx context.Context, k call) (*http.Request, error) {
	var body io.Reader
	switch b := k.body.(type) {
	case nil:
	case json.RawMessage:
		body = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	target := c.base + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	req.Header.Set("Accept", "application/json")
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.GetBody = nil // so that net/http can't send it a second time
	}
	return req, nil
}

// problemOf reads an error answer. One that is not a problem document, such as a proxy's page, keeps its status.
func problemOf(resp *http.Response, body []byte) *Problem {
	p := &Problem{}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "application/problem+json" || json.Unmarshal(body, p) != nil {
		p = &Problem{Type: "about:blank", Title: http.StatusText(resp.StatusCode), Detail: resp.Status}
	}
	p.Status = resp.StatusCode
	if p.RequestID == "" {
		p.RequestID = resp.Header.Get("X-Request-Id")
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// get fetches path into a new T.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (*T, error) {
	return into[T](ctx, c, call{method: http.MethodGet, path: path, query: query})
}

// into makes the call and returns its answer as a new T.
func into[T any](ctx context.Context, c *Client, k call) (*T, error) {
	out := new(T)
	k.into = out
	if err := c.do(ctx, k); err != nil {
		return nil, err
	}
	return out, nil
}

// list fetches a listing that has no cursor.
func list[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	out, err := get[List[T]](ctx, c, path, nil)
	if err != nil {
		return nil, err
	}
	return out.Data, nil
}

// pageQuery returns the parameters of a page; the zero values ask for the first page of the default size.
func pageQuery(cursor string, limit int) url.Values {
	q := url.Values{}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q
}
