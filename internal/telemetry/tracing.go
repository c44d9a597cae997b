package telemetry

import (
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// Handler gives each request to next a server span, named by the operation and never by the URL. The spans go to the global
// tracer provider of OpenTelemetry. It drops them unless a program that embeds sendgate installs a provider: this binary links
// no exporter, and the OTEL_EXPORTER_* variables have no effect.
func Handler(next http.Handler, operation string) http.Handler {
	return otelhttp.NewHandler(next, operation)
}

// Transport gives each request through base a client span, under the same condition as Handler. It sends no trace header
// unless a global propagator is installed as well.
func Transport(base http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(base, otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
		return r.Method + " " + r.URL.Host
	}))
}
