package hostcheck

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHostsThatAreLetIn(t *testing.T) {
	t.Parallel()
	names := []string{"mail.example.com", "*.corp.example"}
	const nowhere, inside, both = 0, 1, 2
	for host, where := range map[string]int{
		"localhost": both, "localhost:8027": both, "LOCALHOST.:1": both, "127.0.0.1": both, "127.0.0.1:8027": both, "127.9.9.9:1": both,
		"[::1]:8027": both, "[::1]": both, "[::ffff:127.0.0.1]:1": both,
		"mail.example.com:9": both, "MAIL.example.com.": both, "a.corp.example": both, "a.b.corp.example:1": both,
		"10.0.0.7:8026": inside, "192.0.2.1": inside, "[2001:db8::1]:8026": inside, "[fe80::1%25eth0]:1": inside,
		"sendgate:8026": inside, "sendgate": inside, "sendgate.mail.svc:8026": inside, "sendgate.mail.svc.cluster.local": inside,
		"ip-10-0-0-1.eu-west-1.compute.internal:8026": inside, "nas.local": inside, "x.home.arpa": inside, "a.localhost": inside,
		"localhost.evil.example": nowhere, "127.0.0.1.evil.example:8027": nowhere, "evil.example": nowhere, "corp.example": nowhere,
		"evilcorp.example": nowhere, "mail.example.com.evil.example": nowhere, "evil.svc.example": nowhere, "internal.evil.example": nowhere,
		"127.1.evil.example": nowhere, "": nowhere, ":8027": nowhere, "sendgate.mail": nowhere,
	} {
		for wide, want := range map[bool]bool{false: where == both, true: where != nowhere} {
			r := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
			r.Host = host
			err := Rule{Inside: wide, Names: names, Setting: "--allow-host"}.Check(r)
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "--allow-host") {
				t.Errorf("host %q, inside %v: %v, want let in: %v", host, wide, err, want)
			}
		}
	}
}

func TestPagesOfOtherOriginsAreKeptOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		site, origin string
		want         bool
	}{
		{"", "", true},
		{"none", "", true},
		{"same-origin", "", true},
		{"same-origin", "http://127.0.0.1:8027", true},
		{"", "http://127.0.0.1:8027", true},
		{"cross-site", "", false},
		{"same-site", "", false},
		{"cross-site", "null", false},
		{"", "null", false},
		{"", "https://evil.example", false},
		{"", "http://127.0.0.1:3000", false},
		{"", "http://127.0.0.1:8027.evil.example", false},
	} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"} {
			r := httptest.NewRequest(method, "http://127.0.0.1:8027/_hooks", http.NoBody)
			for name, value := range map[string]string{"Sec-Fetch-Site": c.site, "Origin": c.origin} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			if err := (Rule{}).Check(r); (err == nil) != c.want {
				t.Errorf("%s with site %q, origin %q: %v, want let in: %v", method, c.site, c.origin, err, c.want)
			}
		}
	}
}
