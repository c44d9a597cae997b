package config

import (
	"net/url"
	"strings"
	"time"
)

// checkFeedback checks the settings for events, look-ups and links.
func (c *Config) checkFeedback(p *problems) {
	checkSchedule(p, "LOOKUP_SCHEDULE", c.LookupSchedule)
	checkSchedule(p, "REPEAT_SCHEDULE", c.RepeatSchedule)
	p.check(c.SoftBounceLimit >= 0 && c.SoftBounceLimit <= 1000, "SOFT_BOUNCE_LIMIT", "%d is out of range 0..1000", c.SoftBounceLimit)
	p.check(c.PublicURL == "" || isPublicURL(c.PublicURL), "PUBLIC_URL",
		"%.100q is not https://host without a query or a trailing slash (http only on loopback)", c.PublicURL)
	if c.LMTPListen != "" && !strings.HasPrefix(c.LMTPListen, "unix:/") {
		host, _, err := splitListen(c.LMTPListen)
		p.check(err == nil && loopback(host), "LMTP_LISTEN", "%q is neither host:port on loopback nor unix:/path", c.LMTPListen)
	}
}

// checkSchedule checks that a schedule has 1 to 10 rising durations.
func checkSchedule(p *problems, name string, schedule Durations) {
	p.check(len(schedule) >= 1 && len(schedule) <= 10, name, "want 1 to 10 durations such as 1m,5m,30m")
	before := time.Duration(0)
	for _, d := range schedule {
		p.check(d > before, name, "%s does not come after %s; the durations must rise", d, before)
		before = d
	}
}

// isPublicURL reports whether s is an https URL without query or trailing slash. http is allowed on loopback.
func isPublicURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(s, "/") {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname())
}
