package ses

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTime      = "20060102T150405Z"
	sigMaxSkew   = 5 * time.Minute
)

// signature is a parsed Authorization header.
type signature struct {
	keyID, date, region, service string
	headers                      []string
	value                        string
}

// verify recomputes the signature of a request to a service, as in "AWS Signature Version 4 for API requests" of the IAM User
// Guide. It returns the error code and message of AWS, or "".
func (a *api) verify(r *http.Request, body []byte, service string) (code, message string) {
	if r.Header.Get("Authorization") == "" {
		return "MissingAuthenticationTokenException", "Missing Authentication Token"
	}
	s, ok := parseAuthorization(r.Header.Get("Authorization"))
	if !ok {
		return "IncompleteSignatureException", "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters."
	}
	if !emulator.Same(s.keyID, a.host.Credential("access_key_id")) {
		return "UnrecognizedClientException", "The security token included in the request is invalid."
	}
	stamp := r.Header.Get("X-Amz-Date")
	at, err := time.Parse(sigTime, stamp)
	switch {
	case err != nil || !strings.HasPrefix(stamp, s.date):
		return "IncompleteSignatureException", "Date must be in ISO-8601 'basic format'."
	case a.host.Now().Sub(at).Abs() > sigMaxSkew:
		return "SignatureDoesNotMatch", "Signature expired: " + stamp + " is not within 5 minutes of " + a.host.Now().UTC().Format(sigTime)
	case s.region != a.region() || s.service != service:
		return "SignatureDoesNotMatch", "Credential should be scoped to region '" + a.region() + "' and service '" + service + "'."
	case !slices.Contains(s.headers, "host"):
		return "SignatureDoesNotMatch", "'Host' must be a 'SignedHeader' in the AWS Authorization."
	}
	want := s.sign(a.host.Credential("secret_access_key"), stamp, canonicalRequest(r, body, s.headers))
	if !emulator.Same(s.value, want) {
		return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your " +
			"AWS Secret Access Key and signing method. Consult the service documentation for details."
	}
	return "", ""
}

// parseAuthorization reads the header. It returns false if a part is missing or malformed.
func parseAuthorization(h string) (signature, bool) {
	rest, ok := strings.CutPrefix(h, sigAlgorithm+" ")
	if !ok {
		return signature{}, false
	}
	var s signature
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			if len(scope) != 5 || scope[4] != "aws4_request" {
				return signature{}, false
			}
			s.keyID, s.date, s.region, s.service = scope[0], scope[1], scope[2], scope[3]
		case "SignedHeaders":
			s.headers = strings.Split(value, ";")
		case "Signature":
			s.value = value
		}
	}
	return s, s.keyID != "" && len(s.headers) > 0 && s.value != ""
}

// sign computes the signature of a canonical request.
func (s *signature) sign(secret, stamp, canonical string) string {
	scope := strings.Join([]string{s.date, s.region, s.service, "aws4_request"}, "/")
	sum := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{sigAlgorithm, stamp, scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, "aws4_request", toSign} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

// canonicalRequest builds the canonical request from the signed headers and the hash of the body.
func canonicalRequest(r *http.Request, body []byte, signed []string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + canonicalPath(r.URL) + "\n" + canonicalQuery(r.URL) + "\n")
	for _, name := range signed {
		b.WriteString(name + ":" + canonicalHeader(r, name) + "\n")
	}
	sum := sha256.Sum256(body)
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + hex.EncodeToString(sum[:]))
	return b.String()
}

// canonicalPath encodes the path as sent a second time, which is the rule of every service except S3.
func canonicalPath(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" {
		return "/"
	}
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(url.QueryEscape(p), "+", "%20")
	}
	return strings.Join(parts, "/")
}

func canonicalQuery(u *url.URL) string {
	return strings.ReplaceAll(u.Query().Encode(), "+", "%20")
}

func canonicalHeader(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	values := slices.Clone(r.Header.Values(name))
	for i, v := range values {
		values[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(values, ",")
}
