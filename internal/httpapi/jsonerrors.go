package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// wantError names the expected type, such as "an address". UnmarshalJSONFrom returns it when the JSON has another type.
type wantError string

// Error implements error.
func (e wantError) Error() string { return "want " + string(e) }

// syntaxProblem is the 400 for text that is not JSON. It quotes only field names of the text.
func syntaxProblem(body []byte, err error) error {
	var (
		own    *refusal
		syntax *jsontext.SyntacticError
	)
	if errors.As(err, &own) {
		return own
	}
	if !utf8.Valid(body) {
		return refuse(http.StatusBadRequest, "invalid_utf8", "The body is not UTF-8.")
	}
	at, where := int64(len(body)), ""
	if errors.As(err, &syntax) {
		at = syntax.ByteOffset
		if path := fieldPath(syntax.JSONPointer); path != "" {
			where = " (in " + path + ")"
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "truncated_json", fmt.Sprintf("The JSON ends too early, at byte %d%s.", at, where))
	}
	return refuse(http.StatusBadRequest, "malformed_json", fmt.Sprintf("The JSON is malformed at byte %d%s.", at, where))
}

// decodeProblem is the answer for JSON that does not fit the target type.
func decodeProblem(err error) error {
	var (
		semantic *json.SemanticError
		want     wantError
	)
	if !errors.As(err, &semantic) {
		return refuse(http.StatusBadRequest, "malformed_json", "The JSON can't be decoded.")
	}
	path := fieldPath(semantic.JSONPointer)
	switch {
	case errors.Is(err, json.ErrUnknownName):
		name := semantic.JSONPointer.LastToken()
		return invalid(path, "unknown_field", fmt.Sprintf("unknown field %q", cut(name))+didYouMean(name, jsonNames(semantic.GoType)))
	case errors.As(err, &want):
		return invalid(path, "wrong_type", "expected "+string(want))
	case semantic.GoType == reflect.TypeFor[time.Time]() && semantic.JSONKind == jsontext.KindString:
		return invalid(path, "invalid_time", "a time is RFC 3339 with a zone: 2026-01-31T08:30:00Z")
	case semantic.JSONKind == jsontext.KindNumber && isNumber(semantic.GoType):
		return invalid(path, "invalid_number", "expected "+typeName(semantic.GoType)+" in range")
	}
	return invalid(path, "wrong_type", "expected "+typeName(semantic.GoType))
}

func isNumber(t reflect.Type) bool {
	return t != nil && t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64
}

// typeName names, in plain words, the JSON that a Go type is decoded from.
func typeName(t reflect.Type) string {
	if t == nil {
		return "another type"
	}
	switch kind := t.Kind(); {
	case kind == reflect.Pointer:
		return typeName(t.Elem())
	case t == reflect.TypeFor[time.Time]():
		return "a time in RFC 3339"
	case kind == reflect.Bool:
		return "true or false"
	case kind == reflect.String:
		return "a string"
	case kind == reflect.Float32 || kind == reflect.Float64:
		return "a number"
	case isNumber(t):
		return "an integer"
	case kind == reflect.Slice || kind == reflect.Array:
		return "a list"
	case kind == reflect.Map || kind == reflect.Struct:
		return "an object"
	}
	return "another type"
}

// jsonNames lists the JSON member names of a struct.
func jsonNames(t reflect.Type) []string {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}
