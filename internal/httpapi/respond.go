package httpapi

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

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

// writeBody answers with a value that is known to encode.
func writeBody(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := encode(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte("{}\n")
	}
	write(w, status, contentType, body)
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
