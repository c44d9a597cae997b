package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// caller is from where a request comes: the peer, what X-Forwarded-For says, and whether it is in the networks of the tests.
type caller struct {
	peer, forwarded string
	in              bool
}

const proxyNetwork = "10.0.0.0/8"

func insiders() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
}

func callers() []caller {
	return []caller{
		{"203.0.113.5:1", "", true},
		{"[2001:db8::1]:1", "", true},
		{"[::ffff:203.0.113.5]:1", "", true},
		{"10.0.0.1:1", "203.0.113.5", true},
		{"10.0.0.1:1", "192.0.2.1, ::ffff:203.0.113.5", true},
		{"192.0.2.1:1", "", false},
		{"[2001:db9::1]:1", "", false},
		{"[::cb00:7105]:1", "", false}, // the same bits, not mapped
		{"192.0.2.1:1", "203.0.113.5", false},
		{"10.0.0.1:1", "203.0.113.5, 192.0.2.1", false},
		{"10.0.0.1:1", "", false},
		{"10.0.0.1:1", "203.0.113.5, unknown", false},
		{"@", "203.0.113.5", false},
	}
}

// from makes a request of a caller and gives its status and the code of its problem.
func (r *rig) from(h http.Handler, c caller, method, path, key string) (int, api.Problem) {
	r.t.Helper()
	req := httptest.NewRequest(method, path, http.NoBody)
	if strings.HasSuffix(path, "/stream") {
		req.Header.Set("Last-Event-ID", "none") // else it goes on
	}
	req.RemoteAddr = c.peer
	if c.forwarded != "" {
		req.Header.Set("X-Forwarded-For", c.forwarded)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	var p api.Problem
	if rec.Code >= 400 && json.Unmarshal(rec.Body.Bytes(), &p) != nil {
		p.Code = "page"
	}
	return rec.Code, p
}

func behindProxies(o *Options) {
	o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(proxyNetwork)}
}

// Each route is tried from each address, with no key, with one for anywhere and with one for certain networks.
func TestEveryRouteKnowsFromWhereAKeyIsTaken(t *testing.T) {
	t.Parallel()
	for name, adminNetworks := range map[string][]netip.Prefix{"admin from anywhere": nil, "admin from its networks": insiders()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, behindProxies, func(o *Options) { o.AdminNetworks = adminNetworks })
			for route, scopes := range scopeOf() {
				if scopes == nil {
					continue
				}
				method, pattern, _ := strings.Cut(route, " ")
				path := strings.NewReplacer("{", "", "}", "").Replace(pattern)
				free, bound := r.store.addKey(nil, scopes[0]), r.store.addKey(func(k *record.Key) { k.Networks = insiders() }, scopes[0])
				for _, c := range callers() {
					closed := adminNetworks != nil && strings.HasPrefix(path, "/admin/") && !c.in
					for key, refused := range map[string]bool{"": closed, free: closed, bound: !c.in} {
						status, p := r.from(r.server.Handler(), c, method, path, key)
						if got := p.Code == "address_not_allowed"; got != refused || got && status != http.StatusForbidden {
							t.Errorf("%s from %s (%s) = %d %s, want refused for the address: %v", route, c.peer, c.forwarded, status, p.Code, refused)
						}
						if key == "" && !closed && status != http.StatusUnauthorized {
							t.Errorf("%s from %s without a key = %d, want 401", route, c.peer, status)
						}
						if refused && (strings.Contains(p.Detail, "/24") || strings.Contains(p.Detail, "db8::/")) {
							t.Errorf("%s: detail %q shows the networks", route, p.Detail)
						}
					}
				}
				r.clock.move(time.Minute) // a 401 counts as a failure
			}
		})
	}
}

func TestRefusedAddressIsNamedAsItIsSeen(t *testing.T) {
	t.Parallel()
	r := newRig(t, behindProxies)
	key := r.store.addKey(func(k *record.Key) { k.Networks = insiders() }, record.ScopeRead)
	for _, c := range []struct {
		caller
		want string
	}{
		{caller{"[::ffff:192.0.2.7]:1", "", false}, "192.0.2.7"},
		{caller{"10.0.0.1:1", "198.51.100.4", false}, "198.51.100.4"},
	} {
		if _, p := r.from(r.server.Handler(), c.caller, "GET", "/v1/messages", key); !strings.Contains(p.Detail, " "+c.want+" ") {
			t.Errorf("from %v: detail %q, want %s in it", c.caller, p.Detail, c.want)
		}
	}
}

// A key with the wrong secret says nothing of the networks that the right one is for.
func TestWrongSecretIsToldNothingOfNetworks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := r.store.addKey(func(k *record.Key) { k.Networks = insiders() }, record.ScopeRead)
	body := key[:12] + strings.Repeat("0", secretLen)
	if status, p := r.from(r.server.Handler(), caller{"192.0.2.1:1", "", false}, "GET", "/v1/messages", body+checkOf(body)); status != 401 {
		t.Errorf("a wrong secret from elsewhere = %d %s, want 401", status, p.Code)
	}
}

// Each route is asked for at both addresses, by whoever may use it.
func TestAdminAPIApartIsNowhereElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.AdminApart = true })
	absent := func(h http.Handler, method, path, key string) bool {
		r.clock.move(time.Minute)
		status, p := r.from(h, caller{"192.0.2.1:1", "", false}, method, path, key)
		return status == http.StatusNotFound && p.Detail == "There is nothing at this path."
	}
	public, admin := r.server.Handler(), r.server.AdminHandler()
	for route, scopes := range scopeOf() {
		method, pattern, _ := strings.Cut(route, " ")
		path := strings.NewReplacer("{", "", "}", "").Replace(pattern)
		ofAdmin, ofBoth := strings.HasPrefix(path, "/admin/"), strings.HasPrefix(path, "/openapi") || strings.HasPrefix(path, "/problems/")
		keys := []string{"", "sg_none", r.admin}
		if scopes != nil {
			keys = append(keys, r.store.addKey(nil, scopes[0]))
		}
		for _, key := range keys {
			if got := absent(public, method, path, key); got != ofAdmin {
				t.Errorf("%s at the public address: absent = %v, want %v", route, got, ofAdmin)
			}
			if got := absent(admin, method, path, key); got == (ofAdmin || ofBoth) {
				t.Errorf("%s at the address of the admin API: absent = %v, want %v", route, got, !got)
			}
		}
	}
	for _, path := range []string{"/admin", "/admin/", "/admin/v1", "/admin/v1/", "//admin/v1/keys", "/v1/../admin/v1/keys", "/ADMIN/v1/keys", "/%61dmin/v1/keys", "/admin%2Fv1/keys"} {
		for _, method := range []string{"GET", "OPTIONS", "POST"} {
			if !absent(public, method, path, r.admin) {
				t.Errorf("%s %s at the public address is there", method, path)
			}
		}
	}
}

// A crowd at the public address takes no place at the one of the admin API.
func TestAdminAPIApartHasPlacesOfItsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.AdminApart = true })
	for i := range MaxConns {
		r.server.requests.take(network(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})), 1, nil)
	}
	if status, p := r.from(r.server.Handler(), caller{"192.0.2.1:1", "", false}, "GET", "/v1/messages", r.read); status != 429 {
		t.Fatalf("the public address = %d %s, want it full", status, p.Code)
	}
	if status, p := r.from(r.server.AdminHandler(), caller{"192.0.2.1:1", "", false}, "GET", "/admin/v1/keys", r.admin); status != 200 {
		t.Errorf("the admin API = %d %s, want 200", status, p.Code)
	}
}

func TestChangeOfNetworksBindsWithinTwoSecondsAtOtherReplicas(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	there := caller{"192.0.2.1:1", "", false}
	if status, _ := r.from(r.server.Handler(), there, "GET", "/v1/messages", r.read); status != 200 {
		t.Fatalf("before = %d", status)
	}
	if err := r.store.SetKeyNetworks(t.Context(), "ops", r.read[3:11], insiders()); err != nil { // another replica does
		t.Fatal(err)
	}
	r.clock.move(2 * time.Second)
	if status, p := r.from(r.server.Handler(), there, "GET", "/v1/messages", r.read); p.Code != "address_not_allowed" {
		t.Errorf("2 s later = %d %s, want it refused", status, p.Code)
	}
}

// Not even a stream that was opened before goes on.
func TestStreamEndsWhenItsAddressIsNotTakenAnyMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	x := &stream{Server: r.server, key: r.read[3:11], from: netip.MustParseAddr("192.0.2.1")}
	if !x.may(t.Context()) {
		t.Fatal("it may not go on at first")
	}
	if err := r.store.SetKeyNetworks(t.Context(), "ops", x.key, insiders()); err != nil {
		t.Fatal(err)
	}
	r.clock.move(2 * time.Second)
	if x.may(t.Context()) {
		t.Error("it goes on from an address that the key is not for")
	}
}

func TestNetworksOfAKeyAreSetChangedAndKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.admin)
	k, err := c.CreateKey(t.Context(), api.KeyRequest{
		Name: "shop", Scopes: []string{"read"}, Networks: []string{"10.1.2.3/8", "::ffff:10.0.0.0/104", "2001:DB8::1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	shown := func(id string, want ...string) {
		t.Helper()
		keys, err := c.Keys(t.Context())
		i := slices.IndexFunc(keys, func(k api.Key) bool { return k.ID == id })
		if err != nil || i < 0 {
			t.Fatalf("keys = %v, %v", keys, err)
		}
		if diff := cmp.Diff(want, keys[i].Networks); diff != "" {
			t.Errorf("networks of %s (-want +got):\n%s", id, diff)
		}
	}
	shown(k.ID, "10.0.0.0/8", "2001:db8::1/128")
	if _, err := r.client(k.Secret).Messages(t.Context(), api.MessageQuery{}); code(err) != "403 address_not_allowed" {
		t.Errorf("from elsewhere: %v, want 403", err)
	}
	here := []string{"192.0.2.0/24", "127.0.0.0/8"}
	if got, err := c.PatchKey(t.Context(), k.ID, api.KeyPatch{Networks: &here}); err != nil || cmp.Diff(here, got.Networks) != "" || got.Tenant != "default" || got.Secret != "" {
		t.Errorf("PatchKey = %+v, %v", got, err)
	}
	if _, err := r.client(k.Secret).Messages(t.Context(), api.MessageQuery{}); err != nil {
		t.Errorf("changed here, and from here: %v, want it to bind at once", err)
	}
	if got, err := c.PatchKey(t.Context(), k.ID, api.KeyPatch{}); err != nil || cmp.Diff(here, got.Networks) != "" {
		t.Errorf("a change of nothing = %+v, %v", got, err)
	}
	next, err := c.RotateKey(t.Context(), k.ID, api.KeyRotateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	shown(next.ID, here...)
	if _, err := r.client(next.Secret).Messages(t.Context(), api.MessageQuery{}); err != nil {
		t.Errorf("the next key: %v", err)
	}
	zero := 0
	if _, err := c.RotateKey(t.Context(), next.ID, api.KeyRotateRequest{OverlapSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client(next.Secret).Messages(t.Context(), api.MessageQuery{}); code(err) != "401 unauthorized" {
		t.Errorf("a key that was rotated without overlap: %v, want 401", err)
	}
	if _, err := c.RotateKey(t.Context(), next.ID, api.KeyRotateRequest{}); code(err) != "404 not_found" {
		t.Errorf("rotate what has ended: %v, want 404", err)
	}
	if got, err := c.PatchKey(t.Context(), k.ID, api.KeyPatch{Networks: &[]string{}}); err != nil || len(got.Networks) > 0 {
		t.Errorf("an empty list = %+v, %v, want anywhere", got, err)
	}
	if _, err := c.PatchKey(t.Context(), "00000000", api.KeyPatch{Networks: &here}); code(err) != "404 not_found" {
		t.Errorf("PatchKey of none = %v, want 404", err)
	}
}

func TestNetworksOfAKeyRefuseNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	many := make([]string, maxKeyNetworks+1)
	for i := range many {
		many[i] = fmt.Sprintf("10.0.0.%d", i)
	}
	for _, c := range []struct {
		networks []string
		field    string
	}{
		{[]string{"10.0.0.0/8", "10.0.0.0/33"}, "networks[1]"},
		{[]string{"localhost"}, "networks[0]"},
		{[]string{""}, "networks[0]"},
		{[]string{"fe80::1%eth0"}, "networks[0]"},
		{[]string{"::ffff:0:0/90"}, "networks[0]"},
		{many, "networks"},
	} {
		list, err := json.Marshal(c.networks)
		if err != nil {
			t.Fatal(err)
		}
		for what, a := range map[string]answer{
			"create": r.do("POST", "/admin/v1/keys", r.admin, `{"name":"a","scopes":["send"],"networks":`+string(list)+`}`),
			"change": r.do("PATCH", "/admin/v1/keys/"+r.send[3:11], r.admin, `{"networks":`+string(list)+`}`),
		} {
			r.want(a, 422, "invalid")
			if got := a.problem.Errors[0].Field; got != c.field {
				t.Errorf("%s %v: complains about %q, want %q", what, c.networks, got, c.field)
			}
		}
	}
	r.want(r.do("POST", "/admin/v1/keys/"+r.send[3:11]+"/rotate", r.admin, `{"overlap_seconds":-1}`), 422, "invalid")
	if n := r.store.count("SetKeyNetworks") + r.store.count("CreateKey") + r.store.count("RotateKey"); n > 0 {
		t.Errorf("%d refused changes reached the store", n)
	}
}

func TestNobodyLocksHimselfOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	own := "/admin/v1/keys/" + r.admin[3:11] // requests of the rig come from 192.0.2.1
	r.want(r.do("PATCH", own, r.admin, `{"networks":["203.0.113.0/24"]}`), 409, "locks_you_out")
	r.want(r.do("PATCH", own, r.admin, `{"networks":["203.0.113.0/24","192.0.2.1"]}`), 200, "")
	r.want(r.do("PATCH", own, r.admin, `{"networks":[]}`), 200, "")
}
