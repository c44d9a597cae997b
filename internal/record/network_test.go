package record

import "testing"

func TestNetworksAreReadInOneForm(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.0/8":           "10.0.0.0/8",
		"10.1.2.3/8":           "10.0.0.0/8",
		"192.0.2.7":            "192.0.2.7/32",
		"0.0.0.0/0":            "0.0.0.0/0",
		"::/0":                 "::/0",
		"2001:DB8::1":          "2001:db8::1/128",
		"2001:db8::1/32":       "2001:db8::/32",
		"::ffff:192.0.2.7":     "192.0.2.7/32",
		"::ffff:192.0.2.7/128": "192.0.2.7/32",
		"::ffff:10.0.0.0/104":  "10.0.0.0/8",
		"::ffff:0:0/96":        "0.0.0.0/0",
		"::ffff:0:0/95":        "",
		"fe80::1%eth0":         "",
		"fe80::%eth0/64":       "",
		"10.0.0.0/33":          "",
		"10.0.0/8":             "",
		"010.0.0.1":            "",
		"localhost":            "",
		"10.0.0.0/8,::1":       "",
		" 10.0.0.0/8":          "",
		"":                     "",
	} {
		p, err := ParseNetwork(text)
		got := ""
		if err == nil {
			got = p.String()
		}
		if got != want {
			t.Errorf("ParseNetwork(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
}
