package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// readJSON reads a whole JSON body under the server's cap. A compressed body is a 415: a few kilobytes of gzip can hold
// gigabytes. A body over the cap is a 413, and the connection is closed. If its announced length is over the cap, nothing
// of it is read; otherwise it is read to the cap. Its memory counts until release is called. Call release after an error
// too.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	if err := s.readable(r); err != nil {
		return nil, func() {}, err
	}
	share, err := s.bodies.share(holder{tenant: principal(r).Tenant}, r.Body, r.ContentLength, stopReading(w))
	if err != nil {
		return nil, func() {}, readProblem(w, err)
	}
	r.Body = io.NopCloser(share) // net/http closes its own
	body, err = readAll(w, r, s.maxBody)
	return body, share.release, err
}

// stopReading returns a function that ends a Read of the body in progress.
func stopReading(w http.ResponseWriter) func() {
	return func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) } // an error means no connection, as in tests
}

// readable refuses a body before any of it is read.
func (s *Server) readable(r *http.Request) error {
	switch {
	case r.Host == "": // HTTP/1.0 may leave it out; no program that sends mail does
		return refuse(http.StatusBadRequest, "missing_host", "The request has no Host.")
	case r.ContentLength == 0:
		return checkStart(nil)
	}
	if err := checkContent(r.Header); err != nil {
		return err
	}
	if r.ContentLength > s.maxBody {
		return &http.MaxBytesError{Limit: s.maxBody}
	}
	return nil
}

// readAll reads a body of at most limit bytes. Whatever length is announced, the buffer starts no larger than a common send
// needs, and grows to no more than twice the bytes that have come.
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := http.MaxBytesReader(w, r.Body, limit), error(nil)
	buf := make([]byte, 0, min(max(r.ContentLength, 0), 64<<10)+bytes.MinRead)
	for err == nil {
		if len(buf) == cap(buf) {
			whole := r.ContentLength
			if whole < int64(len(buf)) { // no length was announced
				whole = limit
			}
			buf = append(make([]byte, 0, min(int64(2*len(buf)), whole+bytes.MinRead)), buf...)
		}
		var n int
		n, err = body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
	if !errors.Is(err, io.EOF) {
		return nil, readProblem(w, err)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // an error means no connection, as in tests
	return buf, nil
}

// readCapped reads a small body that must arrive in the given time, since its sender has no key.
func readCapped(w http.ResponseWriter, r *http.Request, limit int64, within time.Duration) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	// An error means that there is no connection to wait for, as in tests. net/http lifts the limit after the body.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(within))
	return readAll(w, r, limit)
}

// readProblem returns the answer for a body that did not arrive. It closes the connection: the rest of the body can't be
// distinguished from a next request. An error about the part that arrived, such as its size, passes as it is.
func readProblem(w http.ResponseWriter, err error) error {
	if refusalOf(err).status < http.StatusInternalServerError {
		return err
	}
	w.Header().Set("Connection", "close")
	if busy, ok := errors.AsType[*record.Unavailable](err); ok {
		return busy
	}
	e := refuse(http.StatusBadRequest, "incomplete_body", "The body ended before its announced length, or is malformed.")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e = refuse(http.StatusRequestTimeout, "body_timeout", "The body arrived too slowly.")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e.cause = io.ErrUnexpectedEOF
	}
	return e
}

// Bounds of hearOut and linger. A client that finds no place is answered and cut off.
const (
	lingerers   = 1024
	lingerBytes = 64 << 20
	lingerTime  = time.Minute
	quietTime   = 500 * time.Millisecond // without a byte of the body
)

// hearOut reads the rest of a refused body before the answer, and throws it away. A client that is cut off while it writes may
// report the failed write instead of the answer, as the client of net/http sometimes does. A client is answered at once if it
// stops writing, announced no length, or waits to be asked for its body (RFC 9110 section 10.1.1).
func hearOut(w http.ResponseWriter, r *http.Request, body io.Reader) {
	if r.ContentLength <= 0 || r.ContentLength > lingerBytes || r.Header.Get("Expect") != "" {
		return
	}
	conn, end := http.NewResponseController(w), time.Now().Add(lingerTime)
	buf := make([]byte, 32<<10)
	for {
		quiet := time.Now().Add(quietTime)
		if quiet.After(end) || conn.SetReadDeadline(quiet) != nil {
			return
		}
		if _, err := body.Read(buf); err != nil {
			return
		}
	}
}

// linger sends the answer, then reads the rest of the request and throws it away. Closing a connection with unread data
// resets it, and a client that is still writing would never see its answer. A client that reads early has the answer by now.
func linger(w http.ResponseWriter, r *http.Request, body io.Reader) {
	if r.ContentLength == 0 || r.Body == nil {
		return
	}
	conn := http.NewResponseController(w)
	if conn.Flush() != nil || conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return // no connection, as in tests
	}
	_, _ = io.CopyN(io.Discard, body, lingerBytes)
}

// checkContent accepts application/json in UTF-8 without a Content-Encoding.
func checkContent(h http.Header) error {
	for _, encoding := range h.Values("Content-Encoding") {
		if encoding = strings.TrimSpace(encoding); encoding != "" && !strings.EqualFold(encoding, "identity") {
			return &refusal{
				status: http.StatusUnsupportedMediaType, code: "unsupported_encoding", detail: "The body must not be compressed.",
				header: http.Header{"Accept-Encoding": {"identity"}}, // RFC 9110 section 15.5.16
			}
		}
	}
	types := h.Values("Content-Type")
	if len(types) != 1 {
		return unsupportedType("application/json", "The request needs one Content-Type: application/json.")
	}
	kind, params, err := mime.ParseMediaType(types[0])
	if err != nil || kind != "application/json" {
		return unsupportedType("application/json", "The Content-Type must be application/json.")
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupportedType("application/json", "JSON is sent in UTF-8 only (RFC 8259 section 8.1).")
	}
	return nil
}

// unsupportedType is a 415 that names what the call accepts.
func unsupportedType(accepts, detail string) error {
	return &refusal{
		status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", detail: detail, header: http.Header{"Accept-Post": {accepts}},
	}
}
