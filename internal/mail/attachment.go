package mail

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime"
	"strings"
)

// Base64 is a file's content as a request gives it: the bytes, or a mark that they were not Base64. The zero value means
// that no content was given at all, which is not the same as an empty file.
type Base64 struct {
	data  []byte
	given bool
	bad   bool
}

// NewBase64 returns content whose bytes are already known.
func NewBase64(data []byte) Base64 { return Base64{data: data, given: true} }

// DecodeBase64 decodes the standard alphabet with padding (RFC 4648 section 4). Line ends are skipped, since MIME tools
// write them (RFC 2045 section 6.8); every other character outside of the alphabet, and bits set in the padding, make
// the content bad, which Draft.Message reports.
func DecodeBase64(text []byte) Base64 {
	if bytes.IndexByte(text, '\r') >= 0 || bytes.IndexByte(text, '\n') >= 0 {
		text = bytes.Map(dropLineEnds, text)
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(data, text)
	if err != nil {
		return Base64{given: true, bad: true}
	}
	return Base64{data: data[:n:n], given: true}
}

func dropLineEnds(r rune) rune {
	if r == '\r' || r == '\n' {
		return -1
	}
	return r
}

// files checks attachments: number, size together, and each one's name, type, content and content id.
func (c *checker) files(list []File) []Attachment {
	if len(list) > c.lim.Attachments {
		c.add("attachments", "too_many", fmt.Sprintf("a message has at most %d attachments", c.lim.Attachments))
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	out := make([]Attachment, len(list))
	seen := make(map[string]struct{}, len(list))
	total := 0
	for i := range list {
		out[i] = c.file(i, &list[i])
		total += len(out[i].Content)
		cid := out[i].ContentID
		if _, twice := seen[cid]; twice && cid != "" {
			c.add(element("attachments", i)+".content_id", "duplicate", "two attachments have this content id")
		}
		seen[cid] = struct{}{}
	}
	if total > c.lim.AttachmentBytes {
		c.add("attachments", "too_long",
			fmt.Sprintf("attachments of %d bytes are over the cap of %d", total, c.lim.AttachmentBytes))
	}
	return out
}

func (c *checker) file(i int, in *File) Attachment {
	out := Attachment{ContentID: in.ContentID, Content: in.Content.data}
	var f *fault
	if out.Filename, f = cleanFilename(in.Filename); f != nil {
		c.fault(element("attachments", i)+".filename", f)
	}
	if out.ContentType, f = cleanContentType(in.ContentType); f != nil {
		c.fault(element("attachments", i)+".content_type", f)
	}
	if f = checkContentID(in.ContentID); f != nil {
		c.fault(element("attachments", i)+".content_id", f)
	}
	switch {
	case !in.Content.given:
		c.add(element("attachments", i)+".content", "required", "an attachment needs content")
	case in.Content.bad:
		c.add(element("attachments", i)+".content", "invalid_base64",
			"content is standard Base64 with padding, without spaces")
	}
	return out
}

// maxFilename is what common file systems take, in bytes.
const maxFilename = 255

// cleanFilename returns a name that a receiver may save under: the part after the last path separator of any system. It
// removes characters that hide the real extension (bidirectional controls, zero-width characters) or the file itself
// (leading dots), and puts an underscore before names that are devices on Windows.
func cleanFilename(s string) (string, *fault) {
	if s == "" {
		return "", &fault{"required", "an attachment needs a filename"}
	}
	if len(s) > maxFilename {
		return "", &fault{"too_long", "a filename has at most 255 bytes"}
	}
	if f := checkControls(s); f != nil {
		return "", f
	}
	s = s[strings.LastIndexAny(s, `/\`)+1:]
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || strings.ContainsRune(`<>:"|?*`, r): // not legal in names on Windows
			return '_'
		case isInvisible(r) && !isJoiner(r):
			return -1
		}
		return r
	}, s)
	s = strings.TrimRight(strings.TrimLeft(s, ". "), ". ")
	if s == "" {
		return "", &fault{"invalid_filename", "nothing of the filename is left without path and dots"}
	}
	if isDeviceName(s) {
		s = "_" + s[:min(len(s), maxFilename-1)]
	}
	return s, nil
}

// isDeviceName reports whether Windows would open a device under this name, with any extension.
func isDeviceName(s string) bool {
	base, _, _ := strings.Cut(strings.ToLower(s), ".")
	switch base = strings.TrimRight(base, " "); base {
	case "con", "prn", "aux", "nul", "conin$", "conout$":
		return true
	}
	return len(base) == 4 && (base[:3] == "com" || base[:3] == "lpt") && base[3] >= '0' && base[3] <= '9'
}

const (
	defaultContentType = "application/octet-stream"
	maxContentType     = 255
)

// cleanContentType gives the canonical form of a media type. Composite types are refused: multipart would be parsed as
// our own structure, and message (RFC 2046 section 5.2) may not be encoded as Base64; message/partial and
// message/external-body carry content past every scanner.
func cleanContentType(s string) (string, *fault) {
	if s == "" {
		return defaultContentType, nil
	}
	invalid := &fault{"invalid_content_type", "content_type is a media type such as application/pdf"}
	if len(s) > maxContentType {
		return "", invalid
	}
	if f := checkChars(s, false); f != nil {
		return "", f
	}
	if !isASCII(s) {
		return "", invalid
	}
	kind, params, err := mime.ParseMediaType(s)
	if err != nil || strings.IndexByte(kind, '/') < 0 {
		return "", invalid
	}
	if strings.HasPrefix(kind, "multipart/") || strings.HasPrefix(kind, "message/") {
		return "", &fault{"content_type_not_allowed", "multipart and message types can't be attached; use application/octet-stream"}
	}
	// The name stands in Content-Disposition, where it was sanitised; a boundary would only mislead.
	delete(params, "name")
	delete(params, "boundary")
	if s = mime.FormatMediaType(kind, params); s == "" {
		return "", invalid
	}
	return s, nil
}

// checkContentID accepts characters that need no quoting between angle brackets in Content-ID and after "cid:" (RFC 2392):
// those of a dot-atom, and @.
func checkContentID(s string) *fault {
	if len(s) > 128 {
		return &fault{"too_long", "a content id has at most 128 characters"}
	}
	if f := checkControls(s); f != nil {
		return f
	}
	for i := range len(s) {
		if !isAtext(s[i]) && s[i] != '.' && s[i] != '@' {
			return &fault{"invalid_content_id", "a content id holds letters, digits, . @ and the characters of an atom"}
		}
	}
	return nil
}
