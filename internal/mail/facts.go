package mail

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"strings"
	"unicode/utf16"
)

// contentFacts fills in the facts that the content rules of providers need.
func (m *Message) contentFacts(f *Facts) {
	f.LocalMarks = localMarks([]Address{m.From}, m.To, m.Cc, m.Bcc, m.ReplyTo)
	f.FromLen = mailboxLen(m.From)
	f.NoSubject = m.Subject == ""
	f.BodyBytes = max(len(m.Text), len(m.HTML))
	for _, a := range m.Attachments {
		f.EmptyFile = f.EmptyFile || len(a.Content) == 0
	}
	seen := make(map[string]bool, len(m.Metadata))
	for k := range m.Metadata {
		k = strings.ToLower(k)
		f.MetaTwins = f.MetaTwins || seen[k]
		seen[k] = true
	}
	f.MetaBytes = jsonLen(m.Metadata)
}

// hashedBytes bounds the messages whose content is hashed. Larger ones never travel together.
const hashedBytes = 256 << 10

// ContentHash is the same for messages that differ only in recipients, headers and metadata. It is "" for large messages.
func (m *Message) ContentHash() string {
	if m.Bytes() > hashedBytes {
		return ""
	}
	h := sha256.New()
	add := func(fields ...string) {
		for _, f := range fields {
			_ = binary.Write(h, binary.BigEndian, int64(len(f)))
			_, _ = io.WriteString(h, f)
		}
	}
	add(m.From.Name, m.From.Email, m.Subject, m.Text, m.HTML, strings.Join(m.Tags, "\x00"))
	for _, a := range m.ReplyTo {
		add("reply", a.Name, a.Email)
	}
	for _, a := range m.Attachments {
		add("file", a.Filename, a.ContentType, a.ContentID, string(a.Content))
	}
	if m.Calendar != nil {
		add("calendar", m.Calendar.Method, m.Calendar.Content)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])
}

// localMarks lists the ASCII characters of local parts that are neither letters, digits, dots nor the common - _ +.
func localMarks(lists ...[]Address) string {
	marks := ""
	for _, list := range lists {
		for _, a := range list {
			for _, r := range a.Local() {
				if strings.ContainsRune("!#$%&'*/=?^`{|}~", r) && !strings.ContainsRune(marks, r) {
					marks += string(r)
				}
			}
		}
	}
	return marks
}

// mailboxLen is the length of "Name" <local@domain> in UTF-16 units.
func mailboxLen(a Address) int {
	if a.Name == "" {
		return len(utf16.Encode([]rune(a.Email)))
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Name)
	return len(utf16.Encode([]rune(`"` + quoted + `" <` + a.Email + `>`)))
}

// jsonLen is the length of the metadata as a JSON object, without the escapes that are for HTML only.
func jsonLen(metadata map[string]string) int {
	if len(metadata) == 0 {
		return 0
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(metadata) // a map of strings always encodes
	return b.Len() - 1       // the newline
}
