package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sendgate/sendgate/internal/mail"
)

// Caps of one JSON text. A send needs a depth of 4 and, with 1,000 recipients in object form, about 6,000 tokens.
const (
	maxDepth  = 32
	maxTokens = 100_000
)

// decodeStrict decodes a request body that must be exactly one JSON object. It refuses everything that two parsers could
// read in two ways: names given twice or differing only in case, invalid UTF-8, lone surrogates, a byte order mark, data
// behind the object. The standard decoder takes the last duplicate, matches names in any case and replaces bad UTF-8
// silently.
//
// Anything that is not such an object is a 400 (*refusal) that names the position. An object whose meaning is wrong is a
// *mail.Invalid that names every fault (see decodeNaming): an unknown field, a wrong type, or U+0000 in a string, which Postgres
// can't store. T decides which fields are known. A type with UnmarshalJSONFrom reports a wrong type by returning a wantError.
func decodeStrict[T any](body []byte, into *T) error {
	named, err := decodeNaming(body, into)
	if err == nil && len(named) > 0 {
		err = &mail.Invalid{Fields: named}
	}
	return err
}

// scan reads the text once, before anything is decoded, and returns the faults of single values.
func scan(body []byte) ([]mail.Field, error) {
	if err := checkStart(body); err != nil {
		return nil, err
	}
	s := scanner{dec: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))}
	for tokens := 0; tokens == 0 || s.dec.StackDepth() > 0; tokens++ {
		if tokens >= maxTokens {
			return nil, refuse(http.StatusBadRequest, "too_many_tokens", "The JSON has more than 100000 tokens.")
		}
		if err := s.next(); err != nil {
			return nil, syntaxProblem(body, err)
		}
	}
	if _, err := s.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, refuse(http.StatusBadRequest, "trailing_data",
			fmt.Sprintf("There is more behind the JSON object, at byte %d.", s.dec.InputOffset()))
	}
	return s.fields, nil
}

// checkStart checks how the text begins: with an object, and without a byte order mark.
func checkStart(body []byte) error {
	if bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		return refuse(http.StatusBadRequest, "byte_order_mark", "The JSON begins with a byte order mark.")
	}
	body = bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(body) == 0:
		return refuse(http.StatusBadRequest, "empty_body", "The request has no body; a JSON object is expected.")
	case body[0] != '{':
		return refuse(http.StatusBadRequest, "expected_object", "The body must be a JSON object.")
	}
	return nil
}

// scanner walks over the tokens and keeps the names seen in each open object.
type scanner struct {
	dec    *jsontext.Decoder
	names  [maxDepth + 1]nameSet
	fields complaints // values that contain U+0000 or are -0
}

// next reads one token, or one scalar value, and checks it.
func (s *scanner) next() error {
	switch s.dec.PeekKind() {
	case jsontext.KindBeginObject, jsontext.KindBeginArray:
		if s.dec.StackDepth() >= maxDepth {
			return refuse(http.StatusBadRequest, "too_deep", "The JSON is nested deeper than 32 levels.")
		}
		_, err := s.dec.ReadToken()
		s.names[s.dec.StackDepth()].reset()
		return err //nolint:wrapcheck // told by syntaxProblem
	case jsontext.KindEndObject, jsontext.KindEndArray:
		_, err := s.dec.ReadToken()
		return err //nolint:wrapcheck // told by syntaxProblem
	default:
		raw, err := s.dec.ReadValue()
		if err != nil {
			return err //nolint:wrapcheck // told by syntaxProblem
		}
		return s.scalar(raw)
	}
}

// scalar checks a number, string or member name.
func (s *scanner) scalar(raw jsontext.Value) error {
	switch raw.Kind() {
	case jsontext.KindNumber:
		if raw[0] == '-' && isZero(raw) {
			s.complain("invalid_number", "-0 is not accepted")
		}
	case jsontext.KindString:
		if bytes.Contains(raw, []byte(`\u0000`)) && holdsNUL(raw) {
			s.complain("control_char", "the text holds U+0000")
		}
		depth := s.dec.StackDepth()
		if kind, n := s.dec.StackIndex(depth); kind == jsontext.KindBeginObject && n%2 == 1 {
			return s.name(&s.names[depth], raw)
		}
	}
	return nil
}

// name notes one member name and refuses it if the object has it already, or has it in another case.
func (s *scanner) name(seen *nameSet, raw jsontext.Value) error {
	name := string(raw[1 : len(raw)-1])
	if strings.IndexByte(name, '\\') >= 0 {
		unquoted, err := jsontext.AppendUnquote(nil, raw)
		if err != nil {
			return err //nolint:wrapcheck // told by syntaxProblem
		}
		name = string(unquoted)
	}
	if seen.add(fold(name)) {
		return nil
	}
	return refuse(http.StatusBadRequest, "duplicate_key",
		fmt.Sprintf("The name %q occurs twice in one object, at byte %d; names that differ only in case count as one.",
			cut(name), s.dec.InputOffset()))
}

func (s *scanner) complain(code, message string) {
	if len(s.fields) < mail.MaxFields {
		s.fields.complain(fieldPath(s.dec.StackPointer()), code, message)
	}
}

// holdsNUL distinguishes the escape \u0000 from an escaped backslash before "u0000".
func holdsNUL(raw jsontext.Value) bool {
	text, err := jsontext.AppendUnquote(nil, raw)
	return err == nil && bytes.IndexByte(text, 0) >= 0
}

// isZero reports whether a number's significand has no digit but 0.
func isZero(raw jsontext.Value) bool {
	digits, _, _ := bytes.Cut(bytes.ToLower(raw), []byte("e"))
	return len(bytes.Trim(digits, "-0.")) == 0
}

// nameSet holds the names of one object: a list while they are few, as they nearly always are.
type nameSet struct {
	few  []string
	many map[string]struct{}
}

const fewNames = 24

func (n *nameSet) reset() {
	n.few = n.few[:0]
	n.many = nil
}

// add reports whether the name is new.
func (n *nameSet) add(name string) bool {
	if n.many != nil {
		_, twice := n.many[name]
		n.many[name] = struct{}{}
		return !twice
	}
	if slices.Contains(n.few, name) {
		return false
	}
	n.few = append(n.few, name)
	if len(n.few) > fewNames {
		n.many = make(map[string]struct{}, 4*fewNames)
		for _, have := range n.few {
			n.many[have] = struct{}{}
		}
	}
	return true
}

// fold maps names that a case-insensitive parser would confuse to one string. Each rune becomes the smallest of its folding
// orbit, in lower case: U+212A (Kelvin) becomes k, U+017F (long s) becomes s.
func fold(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf || r >= 'A' && r <= 'Z' }) {
		return name
	}
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return unicode.ToLower(least)
	}, name)
}

// fieldPath turns a JSON pointer (RFC 6901) into a field path: "/to/3/email" becomes "to[3].email".
func fieldPath(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		switch {
		case token != "" && strings.Trim(token, "0123456789") == "":
			b.WriteString("[" + cut(token) + "]")
		case b.Len() > 0:
			b.WriteString("." + cut(token))
		default:
			b.WriteString(cut(token))
		}
	}
	return b.String()
}

// cut makes a caller's text safe to show back: at most 80 bytes, printable.
func cut(s string) string {
	s = s[:min(len(s), 80)]
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
