package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// SuppressionQuery selects suppressions. Zero fields select everything.
type SuppressionQuery struct {
	Email, Stream, Reason string
	Cursor                string
	Limit                 int // 1..200, default 50
}

// FindSuppressions returns one page of the suppressions that the query selects, by address and stream.
func (c *Client) FindSuppressions(ctx context.Context, q SuppressionQuery) (*SuppressionPage, error) {
	v := pageQuery(q.Cursor, q.Limit)
	for name, value := range map[string]string{"email": q.Email, "stream": q.Stream, "reason": q.Reason} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return get[SuppressionPage](ctx, c, "/v1/suppressions", v)
}

func suppressionPath(email string) string { return "/v1/suppressions/" + url.PathEscape(email) }

// Suppressed returns the suppressions that stop mail to an address, in a stream, or in any if stream is "". The list may be
// empty.
func (c *Client) Suppressed(ctx context.Context, email, stream string) ([]Suppression, error) {
	v := url.Values{}
	if stream != "" {
		v.Set("stream", stream)
	}
	found, err := get[List[Suppression]](ctx, c, suppressionPath(email), v)
	var p *Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusNotFound && p.Code == "not_found":
		return nil, nil
	case err != nil:
		return nil, err
	}
	return found.Data, nil
}

// UnsuppressStream lifts the suppression of an address in one stream; "" means the one that names no stream and holds for all.
func (c *Client) UnsuppressStream(ctx context.Context, email, stream string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: suppressionPath(email), query: url.Values{"stream": {stream}}})
}

// ImportSuppressions adds the suppressions of a CSV file of at most 64 MiB: our own export, or one of SendGrid, Mailgun,
// Postmark or SES. Its first line names the columns. Rows without a reason get reason, or manual if that is "". The result lists
// invalid rows. Only ctx limits the time of the request. After an error part of the file may be stored; it can be sent again.
func (c *Client) ImportSuppressions(ctx context.Context, csv io.Reader, reason string) (*SuppressionImportResult, error) {
	q := url.Values{}
	if reason != "" {
		q.Set("reason", reason)
	}
	req, err := c.request(ctx, call{method: http.MethodPost, path: "/v1/suppressions/import", query: q})
	if err != nil {
		return nil, err
	}
	req.Body = io.NopCloser(csv)
	req.Header.Set("Content-Type", "text/csv; charset=utf-8")
	resp, err := c.long(req, "application/json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	out := &SuppressionImportResult{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return nil, fmt.Errorf("decode answer: %w", err)
	}
	return out, nil
}

// ExportSuppressions writes all suppressions in force as CSV. Only ctx limits the time of the request. After an error the
// output is incomplete.
func (c *Client) ExportSuppressions(ctx context.Context, to io.Writer) error {
	req, err := c.request(ctx, call{method: http.MethodGet, path: "/v1/suppressions/export"})
	if err != nil {
		return err
	}
	resp, err := c.long(req, "text/csv")
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("export suppressions: %w", err)
	}
	return nil
}
