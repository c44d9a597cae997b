package mail

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAttachmentsTogetherStayUnderTheirCap(t *testing.T) {
	t.Parallel()
	caps := DefaultCaps()
	caps.AttachmentBytes = 10
	d := draft()
	d.Attachments = []File{{Filename: "a", Content: NewBase64(make([]byte, 6))}, {Filename: "b", Content: NewBase64(make([]byte, 5))}}
	_, err := d.Message(noon(), caps)
	if got := codes(t, err); got != "attachments too_long" {
		t.Errorf("11 bytes under a cap of 10 = %q, want attachments too_long", got)
	}
}

func TestFilenamesAreNeverPaths(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ want, err string }{
		"report.pdf":                      {want: "report.pdf"},
		"Übersicht 2026.pdf":              {want: "Übersicht 2026.pdf"},
		"../../etc/passwd":                {want: "passwd"},
		`C:\Users\x\a.doc`:                {want: "a.doc"},
		"a/b\\c.txt":                      {want: "c.txt"},
		".htaccess":                       {want: "htaccess"},
		"...a":                            {want: "a"},
		"a.txt. ":                         {want: "a.txt"},
		"invoice\u202efdp.exe":            {want: "invoicefdp.exe"},
		"a\u200bb":                        {want: "ab"},
		`a"b<c>d|e?f*g:h`:                 {want: "a_b_c_d_e_f_g_h"},
		"CON":                             {want: "_CON"},
		"nul.txt":                         {want: "_nul.txt"},
		"com1":                            {want: "_com1"},
		"LPT9.log":                        {want: "_LPT9.log"},
		"COM":                             {want: "COM"},
		"console":                         {want: "console"},
		"a\r\nX: y":                       {err: "control_char"},
		"a\x00.txt":                       {err: "control_char"},
		"":                                {err: "required"},
		"..":                              {err: "invalid_filename"},
		"a/":                              {err: "invalid_filename"},
		strings.Repeat("a", 256):          {err: "too_long"},
		"nul." + strings.Repeat("a", 251): {want: "_nul." + strings.Repeat("a", 250)},
	}
	for in, tt := range tests {
		t.Run(in[:min(len(in), 40)], func(t *testing.T) {
			t.Parallel()
			got, f := cleanFilename(in)
			if code(f) != tt.err || got != tt.want {
				t.Errorf("cleanFilename(%.40q) = %q, %q; want %q, %q", in, got, code(f), tt.want, tt.err)
			}
		})
	}
}

func code(f *fault) string {
	if f == nil {
		return ""
	}
	return f.code
}

func TestContentTypes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ want, err string }{
		"":                                 {want: "application/octet-stream"},
		"application/pdf":                  {want: "application/pdf"},
		"Text/HTML; charset=UTF-8":         {want: "text/html; charset=UTF-8"},
		"text/calendar; method=REQUEST":    {want: "text/calendar; method=REQUEST"},
		`image/png; name="x.png"`:          {want: "image/png"},
		"text/html\r\nX: y":                {err: "control_char"},
		"multipart/mixed; boundary=x":      {err: "content_type_not_allowed"},
		"message/partial; id=1; number=1":  {err: "content_type_not_allowed"},
		"Message/RFC822":                   {err: "content_type_not_allowed"},
		"text":                             {err: "invalid_content_type"},
		"text/":                            {err: "invalid_content_type"},
		"text/html; charset":               {err: "invalid_content_type"},
		"text/html; a=1; a=2":              {err: "invalid_content_type"},
		"téxt/html":                        {err: "invalid_content_type"},
		"text/" + strings.Repeat("x", 300): {err: "invalid_content_type"},
	}
	for in, tt := range tests {
		t.Run(in[:min(len(in), 40)], func(t *testing.T) {
			t.Parallel()
			got, f := cleanContentType(in)
			if code(f) != tt.err || got != tt.want {
				t.Errorf("cleanContentType(%.60q) = %q, %q; want %q, %q", in, got, code(f), tt.want, tt.err)
			}
		})
	}
}

// Joiners cost the most time, because for each one the code looks for the @. If the length were not checked first, this test
// would take hours.
func TestHugeContentTypeIsRefusedUnread(t *testing.T) {
	t.Parallel()
	if _, f := cleanContentType("text/" + strings.Repeat("\u200d", 8<<20)); f == nil || f.code != "invalid_content_type" {
		t.Errorf("content type of 24 MiB: %+v, want invalid_content_type", f)
	}
}

func TestContentIDs(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"": "", "logo": "", "logo.1@example.com": "", "a>": "invalid_content_id", "<a>": "invalid_content_id", "a b": "invalid_content_id",
		"a\r\nX: y": "control_char", "ä": "invalid_content_id", `a"b`: "invalid_content_id", strings.Repeat("c", 129): "too_long",
	}
	for in, want := range tests {
		if got := code(checkContentID(in)); got != want {
			t.Errorf("checkContentID(%.40q) = %q, want %q", in, got, want)
		}
	}
}

func TestDecodeBase64(t *testing.T) {
	t.Parallel()
	tests := map[string]Base64{
		"aGk=":       NewBase64([]byte("hi")),
		"aG\r\nk=\n": NewBase64([]byte("hi")),
		"":           NewBase64([]byte{}),
		"+/+/":       NewBase64([]byte{0xfb, 0xff, 0xbf}),
		"-_-_":       {given: true, bad: true}, // URL-safe alphabet
		"aGk":        {given: true, bad: true}, // no padding
		"aGk=aGk=":   {given: true, bad: true},
		"aG k=":      {given: true, bad: true},
		"aG\tk=":     {given: true, bad: true},
		"aGl=":       {given: true, bad: true}, // bits set behind the end
		"äöü":        {given: true, bad: true},
		"\xff\xff=":  {given: true, bad: true},
	}
	for in, want := range tests {
		if diff := cmp.Diff(want, DecodeBase64([]byte(in)), cmp.AllowUnexported(Base64{})); diff != "" {
			t.Errorf("DecodeBase64(%q) (-want +got):\n%s", in, diff)
		}
	}
}
