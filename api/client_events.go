package api

import (
	"bufio"
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

// Events returns one page of events, newest first.
func (c *Client) Events(ctx context.Context, q EventQuery) (*EventPage, error) {
	v := pageQuery(q.Cursor, q.Limit)
	q.filter(v)
	setTime(v, "since", q.Since)
	setTime(v, "until", q.Until)
	return get[EventPage](ctx, c, "/v1/events", v)
}

func (q EventQuery) filter(v url.Values) {
	for _, t := range q.Types {
		v.Add("type", t)
	}
	for name, value := range map[string]string{
		"message_id": q.MessageID, "recipient": q.Recipient, "account": q.Account, "stream": q.Stream,
	} {
		if value != "" {
			v.Set(name, value)
		}
	}
}

func setTime(v url.Values, name string, t time.Time) {
	if !t.IsZero() {
		v.Set(name, t.UTC().Format(time.RFC3339Nano))
	}
}

// StreamEnd is the error of an open stream that has ended, because the server drains or the connection broke. LastID is where
// to continue, even if no event had come.
type StreamEnd struct {
	LastID string
	Err    error // why, io.EOF when the server ended it
}

// Error implements error.
func (e *StreamEnd) Error() string {
	if errors.Is(e.Err, io.EOF) {
		return "the server ended the stream"
	}
	return "the stream broke: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *StreamEnd) Unwrap() error { return e.Err }

// StreamEvents calls each for every event that comes, one at a time, with the id from which a later stream continues after
// that event. It begins after lastID or, if that is "", with new events only. It does not use Since, Until, Cursor and Limit of
// the query. It makes one request and returns when that ends, always with an error: that of ctx or of each, a *Problem, or a
// *StreamEnd. A connection without data for 45 s, three times the server's heartbeat, counts as broken.
func (c *Client) StreamEvents(ctx context.Context, q EventQuery, lastID string, each func(id string, e Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := url.Values{}
	q.filter(v)
	req, err := c.request(ctx, call{method: http.MethodGet, path: "/v1/events/stream", query: v})
	if err != nil {
		return err
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := c.long(req, "text/event-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it is given up
	silence := time.AfterFunc(maxSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	s := eventReader{lines: bufio.NewScanner(resp.Body), id: lastID, heard: func() { silence.Reset(maxSilence) }}
	s.lines.Buffer(nil, maxEventLine)
	for {
		e, err := s.next()
		if err != nil {
			return s.ended(ctx, err)
		}
		silence.Stop() // the caller may be slow
		if err := each(s.id, e); err != nil {
			return err
		}
		silence.Reset(maxSilence)
	}
}

const (
	maxSilence   = 45 * time.Second
	maxEventLine = 1 << 20 // bytes
)

var errSilent = errors.New("nothing came for 45 s")

// eventReader reads server-sent events as this server writes them: with one data line each.
type eventReader struct {
	lines *bufio.Scanner
	id    string // of the last event read
	heard func()
}

// errBadEvent is an event that can't be read.
var errBadEvent = errors.New("event that is not JSON")

// next reads one event. A block without data only moves the id.
func (s *eventReader) next() (Event, error) {
	id, data := s.id, ""
	for s.lines.Scan() {
		s.heard()
		line := s.lines.Text()
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data == "":
			s.id = id
		case line == "":
			var e Event
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				return e, fmt.Errorf("%w: %w", errBadEvent, err)
			}
			s.id = id
			return e, nil
		case name == "id":
			id = value
		case name == "data":
			data = value
		}
	}
	if err := s.lines.Err(); err != nil {
		return Event{}, err
	}
	return Event{}, io.EOF
}

// ended returns the error for the end of a stream.
func (s *eventReader) ended(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errSilent):
		err = cause
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &StreamEnd{LastID: s.id, Err: err}
}

// long makes a request without the client's time limit, for long answers. The caller closes the body.
func (c *Client) long(req *http.Request, accept string) (*http.Response, error) {
	req.Header.Set("Accept", accept)
	unhurried := *c.http
	unhurried.Timeout = 0
	resp, err := unhurried.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call sendgate: %w", err)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == accept {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return nil, problemOf(resp, body)
}

// Stats counts recipients.
func (c *Client) Stats(ctx context.Context, q StatsQuery) (*Stats, error) {
	v := url.Values{}
	if q.By != "" {
		v.Set("by", q.By)
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	setTime(v, "since", q.Since)
	setTime(v, "until", q.Until)
	return get[Stats](ctx, c, "/v1/stats", v)
}

// AccountWebhooks returns the state of the receiver of an account's events.
func (c *Client) AccountWebhooks(ctx context.Context, account string) (*AccountWebhooks, error) {
	return get[AccountWebhooks](ctx, c, accountPath(account)+"/webhooks", nil)
}

// RegisterWebhooks makes the account's provider, through its API, send events to us.
func (c *Client) RegisterWebhooks(ctx context.Context, account string, in AccountWebhooksRequest) (*AccountWebhooksResult, error) {
	return into[AccountWebhooksResult](ctx, c, call{method: http.MethodPost, path: accountPath(account) + "/webhooks", body: in})
}

// Reproject parses one page of kept payloads again and rebuilds what follows from their events.
func (c *Client) Reproject(ctx context.Context, in ReprojectRequest) (*ReprojectResult, error) {
	return into[ReprojectResult](ctx, c, call{method: http.MethodPost, path: admin + "/events/reproject", body: in})
}
