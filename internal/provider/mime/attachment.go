package mime

import (
	"fmt"
	stdmime "mime"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sendgate/sendgate/internal/mail"
)

const octetStream = "application/octet-stream"

// attachment makes the leaf of one file, always base64. n is its 1-based position, which gives a name to a file without one:
// Mailgun drops parts without a name.
func attachment(a *mail.Attachment, n int, inline bool) (*part, error) {
	name := a.Filename
	if name == "" {
		name = "attachment-" + strconv.Itoa(n)
	}
	if err := checkValue("filename", name); err != nil {
		return nil, err
	}
	p := &part{header: &fields{}, content: encodeBase64(a.Content)}
	p.header.add("Content-Type", contentType(a.ContentType, name)...)
	p.header.add("Content-Transfer-Encoding", "base64")
	disposition := "attachment;"
	if inline {
		disposition = "inline;"
	}
	p.header.add("Content-Disposition", append([]string{disposition}, filenameParams(name)...)...)
	if a.ContentID != "" {
		if err := checkContentID(a.ContentID); err != nil {
			return nil, err
		}
		p.header.add("Content-ID", "<"+a.ContentID+">")
	}
	return p, nil
}

// contentType returns the tokens of the field: the type as given, its parameters, and a plain ASCII name for readers that don't
// know RFC 2231. Composite types may not be base64 (RFC 2045 section 6.4), so a message or multipart file gets the type of plain
// bytes, and so does a file with an invalid type.
func contentType(given, filename string) []string {
	typ, params, err := stdmime.ParseMediaType(given)
	if err != nil || !printable(typ, "") || !strings.Contains(typ, "/") ||
		strings.HasPrefix(typ, "multipart/") || strings.HasPrefix(typ, "message/") {
		typ, params = octetStream, nil
	}
	keys := make([]string, 0, len(params))
	for k := range params {
		if k != "name" && k != "boundary" {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	tokens := []string{typ}
	for _, k := range keys {
		// FormatMediaType writes one parameter with its quoting or RFC 2231 encoding, and returns "" if it can't.
		if p, ok := strings.CutPrefix(stdmime.FormatMediaType("x/x", map[string]string{k: params[k]}), "x/x; "); ok && len(p) < hardLine/2 {
			tokens = append(tokens, p)
		}
	}
	return semicolons(append(tokens, "name="+quoted(asciiName(filename))))
}

// filenameParams writes filename as a short quoted string, or else in RFC 2231 form, with several numbered sections if it is
// long.
func filenameParams(name string) []string {
	const chunk = 48
	if len(name) <= quotedLimit && printable(name, "") && !strings.ContainsAny(name, `"\%`) && !strings.Contains(name, "=?") {
		return []string{`filename="` + name + `"`}
	}
	const prefix = "utf-8''"
	var sections []string
	for section := ""; name != ""; {
		_, w := utf8.DecodeRuneInString(name)
		section += percent(name[:w])
		name = name[w:]
		if len(section) >= chunk || name == "" {
			sections = append(sections, section)
			section = ""
		}
	}
	if len(sections) == 1 {
		return []string{"filename*=" + prefix + sections[0]}
	}
	for i, s := range sections {
		if i == 0 {
			s = prefix + s
		}
		sections[i] = "filename*" + strconv.Itoa(i) + "*=" + s
	}
	return semicolons(sections)
}

// percent encodes all characters except the attribute characters that every reader accepts (RFC 2231 section 7).
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '.' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// asciiName is the fallback: every other character becomes "_", and a long name keeps its end, which has the extension.
func asciiName(name string) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\%=?`, r) {
			return '_'
		}
		return r
	}, name)
	return s[max(len(s)-quotedLimit, 0):]
}

func semicolons(tokens []string) []string {
	for i := range tokens[:len(tokens)-1] {
		tokens[i] += ";"
	}
	return tokens
}

// checkContentID requires a stored id: no angle brackets, only visible ASCII (RFC 2392 puts it into a URL).
func checkContentID(id string) error {
	if len(id) > 255 {
		return fmt.Errorf("content id of %d characters, want at most 255", len(id))
	}
	if !printable(id, "") || strings.ContainsAny(id, "<> ") {
		return fmt.Errorf("content id holds a space, an angle bracket or a character that is not ASCII")
	}
	return nil
}
