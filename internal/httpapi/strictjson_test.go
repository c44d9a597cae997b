package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

// outcome names what became of a decoding: "", a 400's code, or "field code" of each mistake.
func outcome(t *testing.T, err error) string {
	t.Helper()
	var (
		bad *mail.Invalid
		own *refusal
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &bad):
		var all []string
		for _, f := range bad.Fields {
			all = append(all, f.Field+" "+f.Code)
		}
		return strings.Join(all, ", ")
	case errors.As(err, &own):
		return own.code
	}
	t.Fatalf("error of an unknown kind: %v", err)
	return ""
}

func TestDecodeStrictRefusesAmbiguousJSON(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	tests := map[string]struct{ body, want string }{
		"empty":                    {"", "empty_body"},
		"only white space":         {" \n", "empty_body"},
		"byte order mark":          {"\xef\xbb\xbf{}", "byte_order_mark"},
		"null":                     {"null", "expected_object"},
		"list":                     {"[]", "expected_object"},
		"string":                   {`"x"`, "expected_object"},
		"number":                   {"1", "expected_object"},
		"two values":               {"{} {}", "trailing_data"},
		"garbage behind":           {"{}x", "trailing_data"},
		"truncated":                {`{"subject":"a`, "truncated_json"},
		"truncated after name":     {`{"subject"`, "truncated_json"},
		"malformed":                {`{"subject":}`, "malformed_json"},
		"single quotes":            {`{'subject':1}`, "malformed_json"},
		"comment":                  {`{/**/}`, "malformed_json"},
		"trailing comma":           {`{"subject":"a",}`, "malformed_json"},
		"NaN":                      {`{"subject":NaN}`, "malformed_json"},
		"leading zero":             {`{"subject":01}`, "malformed_json"},
		"control character":        {"{\"subject\":\"a\nb\"}", "malformed_json"},
		"duplicate name":           {`{"to":"a@b.co","to":"c@d.co"}`, "duplicate_key"},
		"duplicate by escape":      {`{"to":"a@b.co","t\u006f":"c@d.co"}`, "duplicate_key"},
		"duplicate by case":        {`{"to":"a@b.co","TO":"c@d.co"}`, "duplicate_key"},
		"duplicate by Kelvin sign": {`{"metadata":{"k":"1","\u212a":"2"}}`, "duplicate_key"},
		"duplicate inside":         {`{"metadata":{"a":"1","A":"2"}}`, "duplicate_key"},
		"same name in siblings":    {`{"from":{"email":"a@b.co"},"to":{"email":"a@b.co"}}`, ""},
		"invalid UTF-8":            {"{\"subject\":\"\xff\"}", "invalid_utf8"},
		"invalid UTF-8 in a name":  {"{\"\xff\":1}", "invalid_utf8"},
		"lone surrogate":           {`{"subject":"\ud800"}`, "malformed_json"},
		"reversed surrogates":      {`{"subject":"\udc00\ud800"}`, "malformed_json"},
		"surrogate pair":           {`{"subject":"\ud83d\ude00"}`, ""},
		"depth of 33":              {deep(32), "too_deep"},
		"depth of 100,000":         {deep(100_000), "too_deep"},
		"depth of 32":              {deep(31), "a unknown_field"},
		"NUL":                      {`{"subject":"a\u0000b"}`, "subject control_char"},
		"NUL in a list":            {`{"to":["a@b.co",{"email":"\u0000"}]}`, "to[1].email control_char"},
		"NUL in a name":            {`{"metadata":{"a\u0000":"b"}}`, "metadata.a? control_char"},
		"NULs, then bad syntax":    {`{"subject":"\u0000",}`, "malformed_json"},
		"escaped backslash, u0000": {`{"subject":"\\u0000"}`, ""},
		"minus zero":               {`{"n":-0.0e1}`, "n invalid_number"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var in sendRequest
			if got := outcome(t, decodeStrict([]byte(tt.body), &in)); got != tt.want {
				t.Errorf("decodeStrict(%.60q) = %q, want %q", tt.body, got, tt.want)
			}
		})
	}
}

func TestDecodeStrictNamesTheField(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ body, want string }{
		"unknown field":            {`{"form":"a@b.co"}`, "form unknown_field"},
		"unknown field in address": {`{"from":{"mail":"a@b.co"}}`, "from.mail unknown_field"},
		"unknown field in list":    {`{"attachments":[{},{"x":1}]}`, "attachments[1].x unknown_field"},
		"wrong case is unknown":    {`{"Subject":"a"}`, "Subject unknown_field"},
		"to is a number":           {`{"to":5}`, "to wrong_type"},
		"to holds a number":        {`{"to":["a@b.co",5]}`, "to[1] wrong_type"},
		"to holds a list":          {`{"to":[["a@b.co"]]}`, "to[0] wrong_type"},
		"from is a list":           {`{"from":["a@b.co"]}`, "from wrong_type"},
		"email is a number":        {`{"to":[{"email":1}]}`, "to[0].email wrong_type"},
		"subject is a number":      {`{"subject":1e400}`, "subject wrong_type"},
		"tags are a string":        {`{"tags":"a"}`, "tags wrong_type"},
		"metadata value":           {`{"metadata":{"a":1}}`, "metadata.a wrong_type"},
		"content is an object":     {`{"attachments":[{"content":{}}]}`, "attachments[0].content wrong_type"},
		"headers are a list":       {`{"headers":[]}`, "headers wrong_type"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var in sendRequest
			if got := outcome(t, decodeStrict([]byte(tt.body), &in)); got != tt.want {
				t.Errorf("decodeStrict(%s) = %q, want %q", tt.body, got, tt.want)
			}
		})
	}
}

func TestDecodeStrictGuessesWhatWasMeant(t *testing.T) {
	t.Parallel()
	var (
		in  sendRequest
		bad *mail.Invalid
	)
	if err := decodeStrict([]byte(`{"form":"a@b.co"}`), &in); !errors.As(err, &bad) {
		t.Fatalf("decodeStrict = %v, want an *Invalid", err)
	}
	if got := bad.Fields[0].Message; !strings.Contains(got, `did you mean "from"`) {
		t.Errorf("message = %q, want a hint at from", got)
	}
}

func TestDecodeStrictHoldsNumbersToTheirType(t *testing.T) {
	t.Parallel()
	type target struct {
		N int     `json:"n"`
		W float64 `json:"w"`
	}
	tests := map[string]string{
		`{"n":12}`:                  "",
		`{"n":1e2}`:                 "n invalid_number",
		`{"n":1.0}`:                 "n invalid_number",
		`{"n":9223372036854775808}`: "n invalid_number",
		`{"n":-0}`:                  "n invalid_number",
		`{"n":"1"}`:                 "n wrong_type",
		`{"w":1e400}`:               "w invalid_number",
		`{"w":0.5}`:                 "",
	}
	for body, want := range tests {
		t.Run(body, func(t *testing.T) {
			t.Parallel()
			var in target
			if got := outcome(t, decodeStrict([]byte(body), &in)); got != want {
				t.Errorf("decodeStrict(%s) = %q, want %q", body, got, want)
			}
		})
	}
}

func TestDecodeStrictCapsTokens(t *testing.T) {
	t.Parallel()
	var in sendRequest
	body := `{"tags":[` + strings.Repeat(`"",`, maxTokens) + `""]}`
	if got := outcome(t, decodeStrict([]byte(body), &in)); got != "too_many_tokens" {
		t.Errorf("decodeStrict of %d tokens = %q, want too_many_tokens", maxTokens, got)
	}
}

// An object with many names is checked in linear time: with a list of names this test would take minutes.
func TestDecodeStrictFindsDuplicatesAmongManyNames(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString(`{"metadata":{"first":"1"`)
	for i := range 40_000 {
		fmt.Fprintf(&b, `,"k%d":"v"`, i)
	}
	b.WriteString(`,"FIRST":"2"}}`)
	var in sendRequest
	if got := outcome(t, decodeStrict(b.Bytes(), &in)); got != "duplicate_key" {
		t.Errorf("decodeStrict = %q, want duplicate_key", got)
	}
}

func TestDecodeStrictTakesEveryFormOfAddress(t *testing.T) {
	t.Parallel()
	var in sendRequest
	err := decodeStrict([]byte(`{"from":"Shop <shop@example.com>","to":"ann@example.org","cc":{"email":"b@example.org","name":"B"},
		"bcc":["c@example.org",{"email":"d@example.org"}],"reply_to":null,"subject":null,"attachments":
		[{"filename":"a","content":"aGk=","content_id":null},{"filename":"b","content":"aG\n\u006b\/"}]}`), &in)
	if err != nil {
		t.Fatal(err)
	}
	want := &mail.Draft{
		From: mail.Mailbox{Text: "Shop <shop@example.com>"}, To: []mail.Mailbox{{Text: "ann@example.org"}},
		Cc:          []mail.Mailbox{{Email: "b@example.org", Name: "B"}},
		Bcc:         []mail.Mailbox{{Text: "c@example.org"}, {Email: "d@example.org"}},
		Attachments: []mail.File{{Filename: "a", Content: mail.NewBase64([]byte("hi"))}, {Filename: "b", Content: mail.NewBase64([]byte("hi?"))}},
	}
	if diff := cmp.Diff(want, in.draft(), cmp.AllowUnexported(mail.Base64{})); diff != "" {
		t.Errorf("draft (-want +got):\n%s", diff)
	}
}

func FuzzDecodeStrict(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"to":["a@b.co",{"email":"x"}],"metadata":{"a":"b"}}`, `{"a":{"A":1,"a":2}}`, `{"subject":"\u0000"}`, "{\"\xff\":1}",
		`{"attachments":[{"content":"aGk="}]}`, `{"to":5}`, `{"x":-0}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var in sendRequest
		err := decodeStrict(body, &in)
		if outcome(t, err) != "" {
			return
		}
		// What was taken is taken again, and means the same, when it is written in the plainest way.
		var again sendRequest
		if err := decodeStrict(append(append([]byte(" "), body...), '\n'), &again); err != nil {
			t.Fatalf("second decoding: %v", err)
		}
		if diff := cmp.Diff(in.draft(), again.draft(), cmp.AllowUnexported(mail.Base64{})); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkDecodeStrict(b *testing.B) {
	body := sendBody5KB()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var in sendRequest
		if err := decodeStrict(body, &in); err != nil {
			b.Fatal(err)
		}
	}
}

// sendBody5KB is a common transactional message.
func sendBody5KB() []byte {
	html := strings.Repeat(`<p style=\"margin:0\">Dear Ann, your order is on its way.</p>\n`, 60)
	return []byte(`{"from":{"email":"shop@example.com","name":"Shop"},"to":[{"email":"ann@example.org","name":"Ann"}],
"reply_to":["help@example.com"],"subject":"Your order","text":"` + strings.Repeat("Your order is on its way. ", 30) + `","html":"` + html + `",
"headers":{"X-Order":"42","List-Unsubscribe":"<https://example.com/u>"},"tags":["order","eu"],
"metadata":{"order_id":"42","customer":"7"},"stream":"transactional","send_at":null,"account":null}`)
}
