package jail

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestCheckURL(t *testing.T) {
	t.Parallel()
	loopback := Options{Allow: []Target{{netip.MustParsePrefix("127.0.0.0/8"), 8080}}}
	more := Options{Ports: []uint16{80, 8443}}
	tests := []struct {
		url  string
		o    Options
		want bool
	}{
		{"https://hooks.example.com/in?tenant=7", Options{}, true},
		{"https://HOOKS.example.com:443/", Options{}, true},
		{"https://xn--bcher-kva.example/", Options{}, true},
		{"https://1.1.1.1/", Options{}, true},
		{"https://[2606:4700:4700::1111]/", Options{}, true},
		{"https://hooks.example.com:8443/", more, true},
		{"http://hooks.example.com/", more, true},
		{"http://127.0.0.1:8080/", loopback, true},
		{"http://localhost:8080/", loopback, true},

		{"", Options{}, false},
		{"hooks.example.com", Options{}, false},
		{"//hooks.example.com/", Options{}, false},
		{"http://hooks.example.com/", Options{}, false},
		{"http://hooks.example.com:443/", Options{}, false},
		{"https://hooks.example.com:8443/", Options{}, false},
		{"https://hooks.example.com:25/", more, false},
		{"https://hooks.example.com:0/", Options{}, false},
		{"https://hooks.example.com:65979/", Options{}, false}, // 443 modulo 65536
		{"https://hooks.example.com:-443/", Options{}, false},
		{"gopher://hooks.example.com:443/", Options{}, false},
		{"file:///etc/passwd", Options{}, false},
		{"javascript:alert(1)", Options{}, false},
		{"https:hooks.example.com", Options{}, false},
		{"https:///path", Options{}, false},
		{"https://user@hooks.example.com/", Options{}, false},
		{"https://:secret@hooks.example.com/", Options{}, false},
		{"http://127.0.0.1:80@evil.example.com/", more, false},
		{"https://hooks.example.com/#part", Options{}, false},
		{"https://hooks.example.com\\@127.0.0.1/", Options{}, false},
		{"https://hooks.example.com\r\nx: y/", Options{}, false},

		{"https://127.0.0.1/", Options{}, false},
		{"https://[::ffff:127.0.0.1]/", Options{}, false},
		{"https://[::ffff:7f00:1]/", Options{}, false},
		{"https://[::1]/", Options{}, false},
		{"https://[::]/", Options{}, false},
		{"https://0.0.0.0/", Options{}, false},
		{"https://169.254.169.254/latest/meta-data/", Options{}, false},
		{"https://[fd00:ec2::254]/", Options{}, false},
		{"https://[fe80::1%25eth0]/", Options{}, false},
		{"https://[64:ff9b::7f00:1]/", Options{}, false},
		{"https://127.1/", Options{}, false},
		{"https://2130706433/", Options{}, false},
		{"https://0x7f000001/", Options{}, false},
		{"https://0X7F.1/", Options{}, false},
		{"https://0x/", Options{}, false},
		{"https://0177.0.0.1/", Options{}, false},
		{"https://127.0.0.1.example.0/", Options{}, false},
		{"https://%31%32%37.0.0.1/", Options{}, false},
		{"https://127.0.0.1./", Options{}, false},
		{"https://hooks.example.com./", Options{}, false},
		{"https://127。0。0。1/", Options{}, false},
		{"https://hooks。example.com/", Options{}, false},
		{"https://bücher.example/", Options{}, false},
		{"https://localhost/", Options{}, false},
		{"https://metadata/", Options{}, false},
		{"https://-.example.com/", Options{}, false},
		{"https://a..example.com/", Options{}, false},
		{"https://" + strings.Repeat("a", 64) + ".example/", Options{}, false},
		{"https://" + strings.Repeat("abc.", 64) + "example/", Options{}, false},
		{"https://hooks.example.com/" + strings.Repeat("a", maxURL), Options{}, false},

		{"http://127.0.0.1:8081/", loopback, false},
		{"http://10.0.0.1:8080/", loopback, false},
		{"http://1.1.1.1:8080/", loopback, false},
		{"https://1.1.1.1/", Options{Deny: []netip.Prefix{netip.MustParsePrefix("1.1.1.0/24")}}, false},
	}
	for _, tt := range tests {
		err := CheckURL(tt.url, tt.o)
		if tt.want && err != nil || !tt.want && !errors.Is(err, ErrForbidden) {
			t.Errorf("CheckURL(%q, %+v) = %v, want allowed: %t", tt.url, tt.o, err, tt.want)
		}
	}
}

// FuzzCheckURL compares CheckURL with the dialer: the dialer must also allow each address that CheckURL accepts.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{
		"https://hooks.example.com/", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]:443/", "https://0x7f.1/", "https://[fe80::1%25lo]/",
		"https://1.1.1.1/", "https://[2606:4700::1111]/", "https://a。b/",
	} {
		f.Add(s)
	}
	w := warder{own: ownAddresses()}
	f.Fuzz(func(t *testing.T, raw string) {
		if CheckURL(raw, Options{}) != nil {
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		host := u.Hostname()
		if addr, err := netip.ParseAddr(host); err == nil {
			if err := w.judge(netip.AddrPortFrom(addr, 443)); err != nil {
				t.Errorf("%q passed, but its address does not: %v", raw, err)
			}
			return
		}
		if strings.ContainsAny(host, "%@:/\\ \r\n") || strings.HasSuffix(host, ".") || strings.ToValidUTF8(host, "") != host {
			t.Errorf("%q passed with the host %q", raw, host)
		}
	})
}
