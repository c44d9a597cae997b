package ses

import (
	"strings"
	"testing"
)

// The credentials of this machine are nobody's who may change an account: no setting sends them to another host than SES.
func TestCredentialsOfThisMachineGoToSESOnly(t *testing.T) {
	t.Parallel()
	for base, ok := range map[string]bool{
		"":                                       true,
		"https://email.eu-west-1.amazonaws.com":  true,
		"https://EMAIL.eu-west-1.amazonaws.com/": true,
		"https://email-fips.us-gov-west-1.amazonaws.com":            true,
		"https://email.cn-north-1.amazonaws.com.cn":                 true,
		"https://email.eu-west-1.api.aws":                           true,
		"https://vpce-0123-abcd.email.eu-west-1.vpce.amazonaws.com": true,
		"http://127.0.0.1:8025/ses":                                 true, // an emulator
		"http://email.eu-west-1.amazonaws.com":                      false,
		"https://evil.example":                                      false,
		"https://email.eu-west-1.amazonaws.com.evil.example":        false,
		"https://evil.example/email.eu-west-1.amazonaws.com":        false,
		"https://email.eu-west-1.amazonaws.com@evil.example":        false,
		"https://email.evil.eu-west-1.amazonaws.com":                false,
		"https://emailxeu-west-1.amazonaws.com":                     false,
		"https://s3.eu-west-1.amazonaws.com":                        false,
		"https://ec2-192-0-2-1.eu-west-1.compute.amazonaws.com":     false,
		"https://email.s3.amazonaws.com":                            false, // these are buckets
		"https://email.s3-us-west-2.amazonaws.com":                  false,
		"https://mine.email.s3.amazonaws.com":                       false,
		"https://email.s3-website-eu-west-1.amazonaws.com":          false,
		"https://mine.email.eu-west-1.amazonaws.com":                false,
		"https://email.s3.vpce.amazonaws.com":                       false,
		"https://169.254.169.254":                                   false,
	} {
		c := Config{Region: "eu-west-1", UseDefaultCredentials: true, BaseURL: base}
		c.AllowPlaintext, c.AllowPrivate = true, true // which widen what base_url may be, and not this
		if err := c.Validate(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "base_url") {
			t.Errorf("base_url %q: %v, want it taken: %v", base, err, ok)
		}
	}
}
