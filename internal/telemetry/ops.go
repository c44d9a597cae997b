package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sendgate/sendgate/internal/hostcheck"
)

// readyTimeout caps one readiness check. It is below the default period of a Kubernetes probe, 10 s, and above the time that
// a busy database needs for a ping.
const readyTimeout = 2 * time.Second

// maxReason caps the reason of a 503, in bytes.
const maxReason = 200

// Degraded says why a process can't do some of its work. No other process could do it either, so this one should still get
// requests.
type Degraded string

// Error implements error.
func (d Degraded) Error() string { return string(d) }

// Ops serves the listener for operations. /healthz says that the process runs. /readyz says that it can do its work: it is a
// 503 with the reason in one line if ready returns an error, or a 200 with the reason if that error is Degraded. /metrics has
// the metrics of reg. The listener needs no key, so it belongs on a loopback or an internal address. The rule keeps out web
// pages in a browser there: they get no metrics, and of readiness only the status.
func Ops(reg prometheus.Gatherer, ready func(context.Context) error, rule hostcheck.Rule) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		err := ready(ctx)
		told := reason
		if rule.Check(r) != nil {
			told = func(error) string { return "the reason is told to the hosts of " + rule.Setting }
		}
		if degraded, ok := errors.AsType[Degraded](err); ok {
			answer(w, http.StatusOK, "degraded: "+told(degraded))
			return
		}
		if err != nil {
			answer(w, http.StatusServiceUnavailable, "not ready: "+told(err))
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	// A collector that fails must not hide the others, so all metrics that could be gathered are served.
	mux.Handle("GET /metrics", rule.Guard(promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})))
	return mux
}

func answer(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, line+"\n")
}

// reason is the error in one line, of at most maxReason bytes.
func reason(err error) string {
	line := strings.Join(strings.Fields(err.Error()), " ")
	if len(line) > maxReason {
		line = strings.ToValidUTF8(line[:maxReason], "")
	}
	return line
}
