package httpapi

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// As returns a transport to the API of this process, for a person who made the request r and was found by the session of that
// request. Calls through it need no key. They get the same checks, errors and log lines as calls with a key of these scopes that
// belongs to the tenant, and the audit names record.ActorOf the name. They also count as calls from the address of r, so that
// the admin networks hold. No request from the network can get such rights: they are in the context of the call only.
func (s *Server) As(r *http.Request, name string, scopes []record.Scope, tenant string) http.RoundTripper {
	return &insider{
		s: s, from: r, tenant: tenant,
		key: record.Key{ID: record.ActorOf(name), Tenant: mail.DefaultTenant, Name: name, Scopes: scopes},
	}
}

// insider answers calls of one person without a network.
type insider struct {
	s      *Server
	from   *http.Request
	tenant string
	key    record.Key
}

// RoundTrip implements http.RoundTripper.
func (i *insider) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		req.Body = http.NoBody
	}
	defer req.Body.Close() //nolint:errcheck // it is in memory
	ctx := context.WithValue(req.Context(), insiderKey, i)
	ctx = context.WithValue(ctx, chi.RouteCtxKey, (*chi.Context)(nil)) // that of the dashboard's route
	in := req.Clone(ctx)
	in.RemoteAddr, in.Host = i.from.RemoteAddr, i.from.Host
	if hops := i.from.Header.Values("X-Forwarded-For"); len(hops) > 0 {
		in.Header["X-Forwarded-For"] = hops
	}
	in.Header.Set("X-Request-Id", requestID(i.from.Context()))
	w := &kept{header: http.Header{}}
	i.s.inside.ServeHTTP(w, in)
	return &http.Response{
		StatusCode: max(w.status, http.StatusOK), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: w.header,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: req,
	}, nil
}

// defaultTenant is the name of mail.DefaultTenant, which can't be changed.
const defaultTenant = "default"

// principal returns the key that stands for the person, of the tenant that the call is about. A call that reads of the default
// tenant needs no look-up.
func (i *insider) principal(r *http.Request) (*record.Key, error) {
	if i.tenant == defaultTenant && r.Method == http.MethodGet {
		return &i.key, nil
	}
	tenants, err := i.s.store.Tenants(r.Context())
	if err != nil {
		return nil, err
	}
	for _, t := range tenants {
		if t.Name == i.tenant {
			key := i.key
			key.Tenant, key.TenantPaused = t.ID, t.Paused
			return &key, nil
		}
	}
	return nil, refuse(http.StatusNotFound, "not_found", "There is no such tenant.")
}

// kept is an answer in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (k *kept) Header() http.Header { return k.header }

// WriteHeader implements http.ResponseWriter.
func (k *kept) WriteHeader(status int) {
	if k.status == 0 {
		k.status = status
	}
}

// Write implements http.ResponseWriter.
func (k *kept) Write(b []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	return k.body.Write(b)
}
