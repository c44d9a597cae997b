package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// A stream that found no events asks the database again after streamPoll; each poll is one query. After heartbeatEvery
// without an event it sends a comment, so that proxies keep the connection and a dead one is noticed.
const (
	streamPoll       = 500 * time.Millisecond
	heartbeatEvery   = 15 * time.Second
	streamPage       = 500
	streamWrite      = 10 * time.Second // for one write
	streamsPerTenant = 10
	maxStreams       = 100
	streamReconnect  = 2 * time.Second // how long browsers wait before they reconnect
)

// streamEvents sends events as they come, as server-sent events (WHATWG HTML, section 9.2). The id of each event is its
// position. A client that gives the last one in Last-Event-ID, or ?last_event_id=, continues without loss or repetition, on
// any replica. A stream ends when the server drains, the key ends, or the database does not answer; the client then
// reconnects.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) error {
	q := readRepeating(r, "type", append(eventParameters, "last_event_id")...)
	key := principal(r)
	f, from := q.events(key.Tenant), q.text("last_event_id")
	if err := q.err(); err != nil {
		return err
	}
	if header := r.Header.Get("Last-Event-ID"); header != "" { // it is newer: browsers reconnect to the URL that they began with
		from = header
	}
	if s.draining() {
		return &record.Unavailable{Reason: "draining", RetryAfter: time.Second}
	}
	place := s.streams.take(holder{tenant: key.Tenant}, 1, nil)
	if place == nil {
		return s.noStream(key.Tenant)
	}
	defer place.release()
	s.metrics.Streams.Inc()
	defer s.metrics.Streams.Dec()
	out := &stream{Server: s, conn: http.NewResponseController(w), w: w, key: key.ID, from: s.clientIP(r), filter: f, position: from}
	return out.run(r.Context())
}

// stream is one open stream.
type stream struct {
	*Server
	conn     *http.ResponseController
	w        http.ResponseWriter
	key      string
	from     netip.Addr
	filter   record.EventFilter
	position string
	quiet    time.Time // since when nothing was sent
}

// run returns an error only before anything was sent: later the stream just ends.
func (x *stream) run(ctx context.Context) error {
	events, err := x.first(ctx)
	if err != nil {
		return err
	}
	if err := x.open(); err != nil {
		return nil //nolint:nilerr // the client went away
	}
	for {
		if err := x.send(events); err != nil || !x.may(ctx) {
			return nil //nolint:nilerr // as above
		}
		if len(events) == 0 && !wait(ctx, streamPoll) {
			return nil
		}
		if events, err = x.next(ctx); err != nil {
			x.log.DebugContext(ctx, "event stream ends", "request_id", requestID(ctx), "error", err)
			return nil
		}
	}
}

// first finds the position to begin at. A stream without one begins behind all present events.
func (x *stream) first(ctx context.Context) (events []mail.Event, err error) {
	if x.position == "" {
		x.position, err = x.store.EventHead(ctx)
		return nil, err
	}
	events, err = x.next(ctx)
	if errors.Is(err, record.ErrNotFound) {
		return nil, refuse(http.StatusBadRequest, "invalid_event_id", "The last event id is not one of this server's.")
	}
	return events, err
}

// next reads the next page of events and moves the position.
func (x *stream) next(ctx context.Context) ([]mail.Event, error) {
	events, next, err := x.store.EventsAfter(ctx, x.filter, x.position, streamPage)
	if err == nil {
		x.position = next
	}
	return events, err
}

// may reports whether the stream may go on. It ends if the key was revoked or no longer allows the client's network.
func (x *stream) may(ctx context.Context) bool {
	if x.draining() {
		return false
	}
	key, err := x.keys.byID(ctx, x.key)
	return err == nil && key != nil && valid(key, x.clock()) && admits(key.Networks, x.from)
}

// open sends the header and the position, so that even a stream without events can be resumed. net/http lifts its read limit
// once the request was read; each write has its own limit.
func (x *stream) open() error {
	h := x.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would buffer small writes
	x.w.WriteHeader(http.StatusOK)
	return x.write(fmt.Appendf(nil, "retry: %d\nid: %s\n\n", streamReconnect.Milliseconds(), x.position))
}

// send writes the events or, after heartbeatEvery without one, a comment and the position reached.
func (x *stream) send(events []mail.Event) error {
	var b bytes.Buffer
	for i := range events {
		if err := appendEvent(&b, &events[i]); err != nil {
			return err
		}
	}
	if b.Len() == 0 {
		if x.now().Sub(x.quiet) < heartbeatEvery {
			return nil
		}
		fmt.Fprintf(&b, ": still here\nid: %s\n\n", x.position)
	}
	return x.write(b.Bytes())
}

// appendEvent writes id, event and data; JSON on one line needs no second data line.
func appendEvent(b *bytes.Buffer, e *mail.Event) error {
	data, err := encode(eventView(e))
	if err != nil {
		return err
	}
	name := string(e.Type)
	if e.Type == mail.EventUnmapped {
		name = "unmapped"
	}
	fmt.Fprintf(b, "id: %s\nevent: %s\ndata: %s\n", e.Position, name, data)
	return nil
}

// write writes and flushes b within streamWrite.
func (x *stream) write(b []byte) error {
	_ = x.conn.SetWriteDeadline(time.Now().Add(streamWrite)) // an error means no connection, as in tests
	if _, err := x.w.Write(b); err != nil {
		return err
	}
	x.quiet = x.now()
	return x.conn.Flush()
}

// wait waits for d and returns true, or false when the context ends first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// noStream is the error when the tenant (429), or this replica (503), has as many streams open as it may.
func (s *Server) noStream(t mail.TenantID) error {
	if s.streams.of(holder{tenant: t}) < streamsPerTenant {
		return &record.Unavailable{Reason: "streams", RetryAfter: streamReconnect}
	}
	return &refusal{
		status: http.StatusTooManyRequests, code: "too_many_streams", retryAfter: streamReconnect,
		detail: fmt.Sprintf("This tenant has %d streams open, which is as many as it may.", streamsPerTenant),
	}
}
