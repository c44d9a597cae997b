package mail

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bodies checks subject, text and html. An empty subject is legal (RFC 5322 section 3.6.5) and kept, and so is one of
// spaces. The encoder takes care of line ends and long lines of a body; only NUL has no encoding that all accept.
func (c *checker) bodies(m *Message) {
	if len(m.Subject) > c.lim.Subject {
		c.add("subject", "too_long", fmt.Sprintf("the subject has at most %d bytes", c.lim.Subject))
	}
	c.fault("subject", checkControls(m.Subject))
	if m.Text == "" && m.HTML == "" {
		c.add("text", "required", "a message needs text, html or both")
	}
	c.body("text", m.Text, c.lim.Text)
	c.body("html", m.HTML, c.lim.HTML)
}

func (c *checker) body(field, s string, limit int) {
	switch {
	case len(s) > limit:
		c.add(field, "too_long", fmt.Sprintf("%s has at most %d bytes", field, limit))
	case strings.IndexByte(s, 0) >= 0:
		c.fault(field, controlChar())
	case !utf8.ValidString(s):
		c.add(field, "invalid_utf8", "the text is not UTF-8")
	}
}

// headers checks custom header fields and sorts them by name.
func (c *checker) headers(list []Header) []Header {
	if len(list) > c.lim.Headers {
		c.add("headers", "too_many", fmt.Sprintf("a message has at most %d custom headers", c.lim.Headers))
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	out := make([]Header, 0, len(list))
	seen := make(map[string]struct{}, len(list))
	for _, h := range list {
		h.Value = strings.Trim(h.Value, " \t")
		if f := checkHeader(h); f != nil {
			c.fault("headers."+label(h.Name), f)
			continue
		}
		lower := lowerASCII(h.Name)
		if _, twice := seen[lower]; twice {
			c.add("headers."+h.Name, "duplicate", "the header is given twice")
		}
		seen[lower] = struct{}{}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b Header) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// checkHeader accepts a field that fits in one line of 998 bytes (RFC 5322 section 2.1.1), or a structured one that can be
// folded. Some relays cut a longer line in two.
func checkHeader(h Header) *fault {
	if f := checkHeaderName(h.Name); f != nil {
		return f
	}
	if f := checkControls(h.Value); f != nil {
		return f
	}
	if SyntaxOf(h.Name) != Unstructured {
		return checkStructured(h.Name, h.Value)
	}
	if len(h.Name)+len(": ")+len(h.Value) > maxHeaderLine {
		return &fault{"too_long", "name and value of a header have at most 996 bytes"}
	}
	return nil
}

const maxHeaderName = 76

func checkHeaderName(name string) *fault {
	if name == "" || len(name) > maxHeaderName {
		return &fault{"invalid_header_name", "a header name has 1 to 76 letters, digits and hyphens"}
	}
	for i := range len(name) {
		if !isLetterDigit(name[i]) && name[i] != '-' {
			return &fault{"invalid_header_name", "a header name has 1 to 76 letters, digits and hyphens"}
		}
	}
	if headerDenied(lowerASCII(name)) {
		return &fault{"header_not_allowed", "this header is set by us, or steers a provider"}
	}
	return nil
}

// headerDenied reports whether a lower-case header name is one that a caller may not set. The header is ours if it says
// who mails whom, how the body is built or who authenticated it. The X- families are control channels: they change
// recipients, templates, tracking or the sending identity at the provider, without our validation and records
// (SendGrid X-SMTPAPI, Amazon SES X-SES-*, Postmark X-PM-*, Mailgun X-Mailgun-*, Mandrill X-MC-*, SparkPost X-MSYS-*).
func headerDenied(name string) bool {
	switch name {
	case "from", "to", "cc", "bcc", "sender", "reply-to", "subject", "date", "message-id", "return-path",
		"mime-version", "delivered-to", "apparently-to", "envelope-to", "x-envelope-to", "x-original-to",
		"errors-to", "dkim-signature", "domainkey-signature", "authentication-results", "x-smtpapi":
		return true
	}
	for _, prefix := range []string{
		"content-", "resent-", "received", "arc-", "x-ses-", "x-mc-", "x-pm-", "x-mailgun-", "x-sg-", "x-msys-",
		"x-sendgate-",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// tags checks tags and leaves out repeated ones.
func (c *checker) tags(list []string) []string {
	if len(list) > c.lim.Tags {
		c.add("tags", "too_many", fmt.Sprintf("a message has at most %d tags", c.lim.Tags))
		return nil
	}
	var out []string
	for i, t := range list {
		if f := checkPrintable(t, c.lim.TagLen); f != nil {
			c.fault(element("tags", i), f)
			continue
		}
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// checkPrintable accepts 1 to limit characters, each visible or a space that is neither first nor last.
func checkPrintable(s string, limit int) *fault {
	if s == "" {
		return &fault{"required", "the value is empty"}
	}
	if f := checkChars(s, true); f != nil {
		return f
	}
	if utf8.RuneCountInString(s) > limit {
		return &fault{"too_long", fmt.Sprintf("the value has at most %d characters", limit)}
	}
	for _, r := range s {
		if !unicode.IsPrint(r) && !isJoiner(r) {
			return &fault{"invalid_char", "the value holds a character that can't be printed"}
		}
	}
	if s[0] == ' ' || s[len(s)-1] == ' ' {
		return &fault{"invalid_char", "the value begins or ends with a space"}
	}
	return nil
}

// metadata checks keys and values. Keys are visible ASCII, because providers carry them in header and form names.
func (c *checker) metadata(m map[string]string) {
	if len(m) > c.lim.MetadataKeys {
		c.add("metadata", "too_many", fmt.Sprintf("metadata has at most %d keys", c.lim.MetadataKeys))
		return
	}
	for _, k := range c.sortedIfBad(m) {
		c.fault("metadata."+label(k), c.checkMetadata(k, m[k]))
	}
}

// sortedIfBad lists the keys whose entries are refused, in order, so that the same request gets the same answer.
func (c *checker) sortedIfBad(m map[string]string) []string {
	var bad []string
	for k, v := range m {
		if c.checkMetadata(k, v) != nil {
			bad = append(bad, k)
		}
	}
	slices.Sort(bad)
	return bad
}

func (c *checker) checkMetadata(k, v string) *fault {
	if k == "" || len(k) > c.lim.MetadataKeyLen {
		return &fault{"invalid_key", fmt.Sprintf("a metadata key has 1 to %d characters", c.lim.MetadataKeyLen)}
	}
	if strings.EqualFold(k, MessageKey) {
		return &fault{"reserved_key", "our own message id travels under the metadata key " + MessageKey}
	}
	if f := checkControls(k); f != nil {
		return f
	}
	for i := range len(k) {
		if k[i] <= ' ' || k[i] >= 0x7f {
			return &fault{"invalid_key", "a metadata key holds visible ASCII characters only"}
		}
	}
	if len(v) > c.lim.MetadataValue && utf8.RuneCountInString(v) > c.lim.MetadataValue {
		return &fault{"too_long", fmt.Sprintf("a metadata value has at most %d characters", c.lim.MetadataValue)}
	}
	return checkControls(v)
}

// names checks stream, account and policy, and fills in their defaults.
func (c *checker) names(m *Message) {
	if m.Stream == "" {
		m.Stream = DefaultStream
	}
	if !IsName(m.Stream) {
		c.add("stream", "invalid_name", "a stream is a name of lower-case letters, digits, - and _")
	}
	if m.Account != "" && !IsName(m.Account) {
		c.add("account", "invalid_name", "an account is a name of lower-case letters, digits, - and _")
	}
	switch {
	case m.OnAmbiguous == "":
		m.OnAmbiguous = Reconcile
	case !slices.Contains([]Policy{Reconcile, Resend, Never}, m.OnAmbiguous):
		c.add("on_ambiguous", "invalid_value", "on_ambiguous is one of reconcile, resend, never")
	}
}

// IsName reports whether s can name a stream, an account, a pool or a tenant: 1 to 63 lower-case letters, digits,
// hyphens and underscores, the first one a letter or a digit.
func IsName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[0] == '_' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// label makes a caller's key fit for a field path: short and without control characters.
func label(s string) string {
	if len(s) > maxHeaderName {
		s = s[:maxHeaderName]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Field is one complaint about one field of a request, named by its path ("to[3].email").
type Field struct {
	Field   string `json:"field"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Invalid is a request whose meaning is wrong: 422 with a Field for each mistake.
type Invalid struct{ Fields []Field }

// Error implements error.
func (e *Invalid) Error() string {
	if len(e.Fields) == 0 {
		return "invalid request"
	}
	return e.Fields[0].Field + ": " + e.Fields[0].Message
}
