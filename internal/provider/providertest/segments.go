package providertest

import (
	"flag"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// segmentCalls is a flag of the test binary, which is why it is a global.
var segmentCalls = flag.Int("segment-calls", 300, "calls of each adapter against the server that answers in two segments")

// answerInSegments calls a server whose answers come in two segments, first the header and then the body. A busy server does
// that, and so does one behind a proxy. Between the two an SDK may drop data that the connection still needs: up to one in
// ten calls of the AWS SDK lost the answer to a message that had been taken. Load does not matter: calls one after the other
// find it soonest.
func answerInSegments(t *testing.T, s Suite) {
	t.Helper()
	_, p := start(t, s, inSegments(s.Accept))
	lost := 0
	for n := range *segmentCalls {
		work := Numbered(n)
		work.Message.Text = strings.Repeat(work.Message.Text, 1+n%8*50) // up to 20 KB, on both sides of net/http's buffer
		if _, err := s.send(t.Context(), t, p, work); err != nil {
			if lost++; lost <= 3 {
				t.Errorf("call %d: %v", n, err)
			}
		}
	}
	t.Logf("%d of %d answers lost", lost, *segmentCalls)
}

// inSegments sends the header of an answer, and its body a little later.
func inSegments(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_ = http.NewResponseController(w).Flush()
		<-time.After(2 * time.Millisecond)
		_, _ = w.Write(rec.Body.Bytes())
	})
}
