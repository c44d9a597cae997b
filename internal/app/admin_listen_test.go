package app

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/config"
)

func problemCode(err error) string {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Code
	}
	return ""
}

// proxied sends requests as a proxy does that forwards them for a client.
type proxied struct {
	next   http.RoundTripper
	client string
}

// RoundTrip implements http.RoundTripper.
func (p proxied) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("X-Forwarded-For", p.client)
	return p.next.RoundTrip(req)
}

// The admin API is at its own address and nowhere else, for the networks that are named.
func TestAdminAPIHasAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	addr := fixedAddr(t)
	r := b.start(t, "SENDGATE_ADMIN_LISTEN="+addr, "SENDGATE_ADMIN_NETWORKS=10.0.0.0/8",
		"SENDGATE_BEHIND_PROXY=true", "SENDGATE_TRUSTED_PROXIES=127.0.0.0/8")
	from := func(client string) *api.Client {
		through := &http.Client{Transport: proxied{b.http.Transport, client}}
		return api.NewWith("http://"+addr, b.keys.admin, through)
	}
	inside := from("10.1.2.3")
	if _, err := inside.Keys(t.Context()); err != nil {
		t.Errorf("at its own address: %v", err)
	}
	if _, err := r.admin.Keys(t.Context()); problemCode(err) != "not_found" {
		t.Errorf("beside the API: %v, want not_found", err)
	}
	if _, err := inside.Messages(t.Context(), api.MessageQuery{}); problemCode(err) != "not_found" {
		t.Errorf("messages at the address of the admin API: %v, want not_found", err)
	}
	if _, err := from("192.0.2.1").Keys(t.Context()); problemCode(err) != "address_not_allowed" {
		t.Errorf("from outside of its networks: %v, want address_not_allowed", err)
	}
}

func TestDoctorWarnsOfAnAdminAPIThatAllReach(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		settings []string
		ok       bool
		detail   string
	}{
		{nil, true, "127.0.0.1:8025"},
		{[]string{"SENDGATE_LISTEN=0.0.0.0:8025"}, false, "anybody who reaches the API"},
		{[]string{"SENDGATE_LISTEN=0.0.0.0:8025", "SENDGATE_ADMIN_LISTEN=127.0.0.1:8029"}, true, "127.0.0.1:8029"},
		{[]string{"SENDGATE_LISTEN=0.0.0.0:8025", "SENDGATE_ADMIN_NETWORKS=192.0.2.0/24"}, true, "192.0.2.0/24"},
	} {
		cfg, err := config.Load(append([]string{
			"SENDGATE_DATABASE_URL=postgres://db/sendgate", "SENDGATE_SECRET_KEY=" + strings.Repeat("ab", 32),
			"SENDGATE_BEHIND_PROXY=true", "SENDGATE_TRUSTED_PROXIES=172.16.0.0/12",
		}, c.settings...))
		if err != nil {
			t.Fatal(err)
		}
		if got := adminCheck(&cfg); got.OK != c.ok || !strings.Contains(got.Detail, c.detail) {
			t.Errorf("%v: %+v, want ok=%v and %q", c.settings, got, c.ok, c.detail)
		}
	}
}
