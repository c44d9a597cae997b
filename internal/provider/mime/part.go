package mime

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"

	"github.com/emersion/go-message/textproto"

	"github.com/sendgate/sendgate/internal/mail"
)

// part is a node of the MIME tree: a leaf with encoded content, or a multipart with children.
type part struct {
	header   *fields
	boundary string
	children []*part
	content  []byte
}

// write writes everything below the header.
func (p *part) write(w io.Writer) error {
	if p.children == nil {
		if _, err := w.Write(p.content); err != nil {
			return fmt.Errorf("write part: %w", err)
		}
		return nil
	}
	mw := textproto.NewMultipartWriter(w)
	if err := mw.SetBoundary(p.boundary); err != nil {
		return fmt.Errorf("set boundary: %w", err)
	}
	for _, c := range p.children {
		pw, err := mw.CreatePart(join(c.header))
		if err != nil {
			return fmt.Errorf("create part: %w", err)
		}
		if err := c.write(pw); err != nil {
			return err
		}
	}
	if err := mw.Close(); err != nil {
		return fmt.Errorf("close multipart: %w", err)
	}
	return nil
}

// body builds the tree: mixed(related(alternative(text, html, calendar), inline…), attachment…). It leaves out each level that
// would have only one child.
func body(m *mail.Message) (*part, error) {
	var inline, attached []*part
	for i := range m.Attachments {
		a := &m.Attachments[i]
		p, err := attachment(a, i+1, a.ContentID != "" && m.HTML != "")
		if err != nil {
			return nil, err
		}
		if a.ContentID != "" && m.HTML != "" {
			inline = append(inline, p)
		} else {
			attached = append(attached, p)
		}
	}
	if a := m.InviteFile(); a != nil {
		p, err := attachment(a, len(m.Attachments)+1, false)
		if err != nil {
			return nil, err
		}
		attached = append(attached, p)
	}
	root := texts(m)
	if len(inline) > 0 {
		typ := "text/html"
		if root.children != nil {
			typ = "multipart/alternative"
		}
		root = container("related", m.ID, append([]*part{root}, inline...), `type="`+typ+`"`)
	}
	if len(attached) > 0 {
		root = container("mixed", m.ID, append([]*part{root}, attached...))
	}
	return root, nil
}

// texts returns the text, the HTML and the invitation. Several of them become alternatives, the richest one last (RFC 2046
// section 5.1.4). The part names the method of the invitation (RFC 6047 section 2.4).
func texts(m *mail.Message) *part {
	var parts []*part
	if m.Text != "" || m.HTML == "" {
		parts = append(parts, text("plain", m.Text))
	}
	if m.HTML != "" {
		parts = append(parts, text("html", m.HTML))
	}
	if m.Calendar != nil {
		parts = append(parts, text("calendar", m.Calendar.Content, "method="+m.Calendar.Method))
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return container("alternative", m.ID, parts)
}

// container makes an inner node. The boundary can't occur in any content: quoted-printable writes "=" as "=3D" and
// base64 has no "_" (RFC 2045 section 6.7, the hint at its end).
func container(subtype string, id mail.ID, children []*part, params ...string) *part {
	boundary := "=_" + subtype + "_" + id.String()
	tokens := []string{"multipart/" + subtype + ";"}
	for _, p := range params {
		tokens = append(tokens, p+";")
	}
	p := &part{header: &fields{}, boundary: boundary, children: children}
	p.header.add("Content-Type", append(tokens, `boundary="`+boundary+`"`)...)
	return p
}

// text makes a leaf of UTF-8 text in the shorter of the two encodings.
func text(subtype, s string, params ...string) *part {
	p := &part{header: &fields{}}
	p.header.add("Content-Type", semicolons(slices.Concat([]string{"text/" + subtype}, params, []string{"charset=utf-8"}))...)
	b := crlf(s)
	if qpIsShorter(b) {
		p.header.add("Content-Transfer-Encoding", "quoted-printable")
		p.content = encodeQP(b)
	} else {
		p.header.add("Content-Transfer-Encoding", "base64")
		p.content = encodeBase64(b)
	}
	return p
}

// crlf turns each CRLF, bare CR and bare LF into one CRLF. It runs before any encoding, so no server can decide what a lone CR or
// LF means (SMTP smuggling).
func crlf(s string) []byte {
	var b bytes.Buffer
	b.Grow(len(s) + len(s)/32)
	for {
		i := strings.IndexAny(s, "\r\n")
		if i < 0 {
			b.WriteString(s)
			return b.Bytes()
		}
		b.WriteString(s[:i])
		b.WriteString("\r\n")
		if strings.HasPrefix(s[i:], "\r\n") {
			i++
		}
		s = s[i+1:]
	}
}

// qpIsShorter compares n + 2·escapes with 4/3·n; line breaks are the same in both.
func qpIsShorter(b []byte) bool {
	escapes := 0
	for _, c := range b {
		if c == '=' || c > '~' || (c < ' ' && c != '\r' && c != '\n' && c != '\t') {
			escapes++
		}
	}
	return escapes*6 <= len(b)
}

func encodeQP(b []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(b) + len(b)/16)
	w := quotedprintable.NewWriter(&out)
	_, _ = w.Write(b) // a bytes.Buffer accepts every write
	_ = w.Close()
	return out.Bytes()
}

// encodeBase64 writes lines of 76 characters (RFC 2045 section 6.8).
func encodeBase64(b []byte) []byte {
	const in, line = 57, 76
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))+len(b)/in*2+2)
	for len(b) > in {
		out = base64.StdEncoding.AppendEncode(out, b[:in])
		out = append(out, '\r', '\n')
		b = b[in:]
	}
	return base64.StdEncoding.AppendEncode(out, b)
}
