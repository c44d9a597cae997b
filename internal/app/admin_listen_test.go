package app

import (
	"errors"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

func problemCode(err error) string {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Code
	}
	return ""
}

// The admin API is at its own address and nowhere else, for the networks that are named.
func TestAdminAPIHasAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	at := func(networks string) (apart, beside *api.Client) {
		t.Helper()
		addr := fixedAddr(t)
		r := b.start(t, "SENDGATE_ADMIN_LISTEN="+addr, "SENDGATE_ADMIN_NETWORKS="+networks)
		return api.NewWith("http://"+addr, b.keys.admin, b.http), r.admin
	}
	apart, beside := at("")
	if _, err := apart.Keys(t.Context()); err != nil {
		t.Errorf("at its own address: %v", err)
	}
	if _, err := beside.Keys(t.Context()); problemCode(err) != "not_found" {
		t.Errorf("beside the API: %v, want not_found", err)
	}
	if _, err := apart.Messages(t.Context(), api.MessageQuery{}); problemCode(err) != "not_found" {
		t.Errorf("messages at the address of the admin API: %v, want not_found", err)
	}
	apart, _ = at("10.0.0.0/8")
	if _, err := apart.Keys(t.Context()); problemCode(err) != "address_not_allowed" {
		t.Errorf("from outside of its networks: %v, want address_not_allowed", err)
	}
}

func TestDoctorWarnsOfAnAdminAPIThatAllReach(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	for _, c := range []struct {
		settings []string
		ok       bool
		detail   string
	}{
		{nil, true, "127.0.0.1:8025"},
		{[]string{"SENDGATE_LISTEN=0.0.0.0:8025"}, false, "whoever reaches the API"},
		{[]string{"SENDGATE_LISTEN=0.0.0.0:8025", "SENDGATE_ADMIN_LISTEN=127.0.0.1:8029"}, true, "127.0.0.1:8029"},
		{[]string{"SENDGATE_LISTEN=0.0.0.0:8025", "SENDGATE_ADMIN_NETWORKS=192.0.2.0/24"}, true, "192.0.2.0/24"},
	} {
		cfg, err := config.Load(append([]string{
			"SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + strings.Repeat("ab", 32),
			"SENDGATE_BEHIND_PROXY=true", "SENDGATE_TRUSTED_PROXIES=172.16.0.0/12",
		}, c.settings...))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, check := range Doctor(t.Context(), cfg) {
			if check.Name == "admin API" {
				found = check.OK == c.ok && strings.Contains(check.Detail, c.detail)
			}
		}
		if !found {
			t.Errorf("%v: no finding that is ok=%v and says %q", c.settings, c.ok, c.detail)
		}
	}
}
