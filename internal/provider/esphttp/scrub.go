package esphttp

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// Scrub makes a text safe to store and show: the account's secrets become [secret], the local part of an email address keeps
// only its first character (x***@domain), control characters become spaces, and the text is cut to provider.MaxDetail bytes.
func (c *Client) Scrub(s string) string {
	for _, secret := range c.secrets {
		s = strings.ReplaceAll(s, secret, "[secret]")
	}
	return provider.Cut(maskAddresses(s))
}

// secretForms lists the forms in which a secret may appear in a text. The longest is first, so that a secret that contains
// another is replaced completely.
func secretForms(secrets []seal.Secret) []string {
	var forms []string
	for _, secret := range secrets {
		if secret.IsZero() {
			continue
		}
		v := secret.Reveal()
		forms = append(forms, v, url.QueryEscape(v), url.PathEscape(v), base64.StdEncoding.EncodeToString([]byte(v)))
	}
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(forms)
}

// maskAddresses hides local parts. It prefers to hide too much ("a@b" in a URL) over too little.
func maskAddresses(s string) string {
	var b strings.Builder
	done := 0
	for i := range len(s) {
		if s[i] != '@' || i+1 == len(s) || !domainByte(s[i+1]) {
			continue
		}
		start := localStart(s[done:i]) + done
		if start == i {
			continue
		}
		first := start
		for first++; first < i && s[first]&0xC0 == 0x80; first++ { // the rest of a UTF-8 character
		}
		b.WriteString(s[done:first])
		b.WriteString("***")
		done = i
	}
	b.WriteString(s[done:])
	return b.String()
}

// localStart returns the start of the local part that ends s, or len(s) if there is none.
func localStart(s string) int {
	if strings.HasSuffix(s, `"`) {
		if open := strings.LastIndexByte(s[:len(s)-1], '"'); open >= 0 {
			return open
		}
	}
	i := len(s)
	for i > 0 && localByte(s[i-1]) {
		i--
	}
	return i
}

func localByte(c byte) bool {
	return alnum(c) || c >= 0x80 || strings.IndexByte(".!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func domainByte(c byte) bool { return alnum(c) || c >= 0x80 || c == '[' }

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
