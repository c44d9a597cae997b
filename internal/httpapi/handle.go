package httpapi

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/sendgate/sendgate/api"
)

// Most handlers turn a request into a value. Four functions make a handlerFunc of them: reply, show, take and remove read what the
// handler needs and write what it returns. routes.go says which one. A handler that sets headers or streams does all itself.

// reply is for calls without a body. It answers 200 with what do returns.
func reply[Out any](do func(*http.Request) (Out, error)) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		out, err := do(r)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, out)
	}
}

// show is reply for calls that have no query parameters either.
func show[Out any](do func(*http.Request) (Out, error)) handlerFunc {
	return reply(func(r *http.Request) (out Out, err error) {
		if err := noQuery(r); err != nil {
			return out, err
		}
		return do(r)
	})
}

// take is for calls with a JSON body and no query parameters. It answers with the status and what do returns.
func take[In, Out any](s *Server, status int, do func(*http.Request, In) (Out, error)) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		in, err := read[In](s, w, r)
		if err != nil {
			return err
		}
		out, err := do(r, in)
		if err != nil {
			return err
		}
		return writeJSON(w, status, out)
	}
}

// remove is for calls without parameters, body and content of the answer: 204.
func remove(do func(*http.Request) error) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := noQuery(r); err != nil {
			return err
		}
		if err := do(r); err != nil {
			return err
		}
		return noContent(w)
	}
}

// read reads the JSON body of a call without query parameters. Its errors are those of noQuery, readJSON and decodeStrict.
func read[T any](s *Server, w http.ResponseWriter, r *http.Request) (in T, err error) {
	if err := noQuery(r); err != nil {
		return in, err
	}
	body, release, err := s.readJSON(w, r)
	defer release()
	if err != nil {
		return in, err
	}
	err = decodeStrict(body, &in)
	return in, err
}

// views returns the view of each row. The list is empty, and not nil, if there are none.
func views[Row, Out any](rows []Row, view func(*Row) Out) []Out {
	out := make([]Out, 0, len(rows))
	for i := range rows {
		out = append(out, view(&rows[i]))
	}
	return out
}

// listView is views as the answer of a listing without cursors.
func listView[Row, Out any](rows []Row, view func(*Row) Out) api.List[Out] {
	return api.List[Out]{Data: views(rows, view)}
}

// timeFormat is RFC 3339 in UTC with exactly three decimals.
const timeFormat = "2006-01-02T15:04:05.000Z"

// encoding returns the options for every JSON answer: as encoding/json, but times have milliseconds, lists are never null,
// and < > & are not escaped, since no JSON answer is HTML.
func encoding() json.Options {
	return json.JoinOptions(
		jsonv1.DefaultOptionsV1(),
		json.FormatNilSliceAsNull(false),
		jsontext.EscapeForHTML(false),
		json.WithMarshalers(json.MarshalToFunc(func(e *jsontext.Encoder, t time.Time) error {
			return e.WriteToken(jsontext.String(t.UTC().Format(timeFormat)))
		})),
	)
}

// writeJSON answers with a value. It is the last thing a handler does.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	write(w, status, "application/json", body)
	return nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, v, encoding()); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// write sends a finished body. It ignores errors of the connection: the client is gone.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // JSON, and nosniff is set
}

// noContent answers 204.
func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// optional returns nil for a time that is not set.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
