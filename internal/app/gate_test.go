package app

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/sendgate/sendgate/api"
)

// takes makes a browser take a one-time link as its script does, and returns what comes.
func (br *browser) takes(link string) view {
	br.t.Helper()
	path, token, _ := strings.Cut(link, "#")
	return br.do(http.MethodPost, path, url.Values{"token": {token}})
}

func TestPeopleSignInAtTheDashboardOfEachReplica(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	one, two := b.start(t), b.start(t)
	ann, err := one.admin.CreateUser(t.Context(), api.UserRequest{Name: "ann", Role: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	br := b.browse(t, one.url, "")
	if v := br.get("/dash/queue"); v.path != "/dash/signin?next=%2Fdash%2Fqueue" {
		t.Errorf("without a session one is led to %s", v.path)
	}
	form := br.takes(ann.Link)
	form.holds(t, 200, "Hello ann", "viewBox")
	secret := strings.ReplaceAll(regexp.MustCompile(`<code>([A-Z2-7 ]{39})</code>`).FindStringSubmatch(form.body)[1], " ", "")
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(ann.Link, "#")
	done := br.do(http.MethodPost, "/dash/welcome", url.Values{"token": {token}, "password": {"correct horse battery"}, "again": {"correct horse battery"}, "code": {code}})
	done.holds(t, 200, "recovery codes")
	br.get("/dash/queue").holds(t, 200, "ann")
	br.url = two.url // a cookie of one host is good at each port
	br.get("/dash/sessions").holds(t, 200, "this one")
	// She has the rights of her role, and no others.
	br.get("/dash/people").holds(t, 200, "ann")
	viewer := "viewer"
	if _, err := one.admin.PatchUser(t.Context(), "ann", api.UserPatch{Role: &viewer}); err != nil {
		t.Fatal(err)
	}
	if v := br.get("/dash/queue"); !strings.HasPrefix(v.path, "/dash/signin") {
		t.Errorf("with a new role she is still in, at %s", v.path)
	}
	wrong := br.do(http.MethodPost, "/dash/signin", url.Values{"name": {"ann"}, "password": {"correct horse battery"}, "code": {code}})
	wrong.holds(t, http.StatusForbidden, "wrong")
}

func TestTheLinkOfDevSignsInOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	a, err := New(b.config(t), quiet())
	if err != nil {
		t.Fatal(err)
	}
	a.linger, a.devLinks = 0, true
	r := b.begin(t, a)
	for range 2 { // dev starts again on the same data
		link, err := a.devLink(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		link = strings.TrimPrefix(link, r.url)
		b.browse(t, r.url, "").takes(link).holds(t, 200, "dev")
		b.browse(t, r.url, "").takes(link).holds(t, http.StatusForbidden, "not valid")
	}
}
