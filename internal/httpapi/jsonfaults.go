package httpapi

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sendgate/sendgate/internal/mail"
)

// namingBudget bounds how many bytes of a text are decoded again to name more than its first fault. Of a text that is longer,
// only the first one is named.
const namingBudget = 256 << 10

// decodeNaming is decodeStrict for callers that judge what was decoded although some parts do not fit. It leaves each such part
// out, returns its fault, and decodes the rest. With an error, into is not to be used.
func decodeNaming[T any](body []byte, into *T) (named []mail.Field, err error) {
	named, err = scan(body)
	for budget := namingBudget; err == nil; budget -= len(body) {
		*into = *new(T)
		misfit := json.Unmarshal(body, into, json.RejectUnknownMembers(true),
			jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) // scan has refused both
		if misfit == nil {
			return named, nil
		}
		var fault *mail.Invalid
		if err = decodeProblem(misfit); !errors.As(err, &fault) {
			break
		}
		named = append(named, besides(named, fault.Fields)...)
		rest := without(body, misfit)
		if err = nil; len(rest) == 0 || budget < len(rest) || len(named) >= mail.MaxFields {
			err = &mail.Invalid{Fields: named}
		}
		body = rest
	}
	return nil, err
}

// without returns the text without the part that does not fit, or nil if that part is not found. A member of an object goes with
// its name; an element of a list becomes null, so that the others keep their places.
func without(body []byte, misfit error) []byte {
	var at *json.SemanticError
	if !errors.As(misfit, &at) || at.JSONPointer == "" {
		return nil
	}
	var out bytes.Buffer
	from := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	to := jsontext.NewEncoder(&out, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for found := false; ; {
		depth := from.StackDepth()
		token, err := from.ReadToken()
		switch {
		case err != nil && found: // the end
			return out.Bytes()
		case err != nil:
			return nil
		case found || from.StackPointer() != at.JSONPointer:
			err = to.WriteToken(token)
		default:
			found = true
			if kind, n := from.StackIndex(depth); kind == jsontext.KindBeginObject && n%2 == 1 { // its name
				err = from.SkipValue()
				break
			}
			for from.StackDepth() > depth && err == nil {
				_, err = from.ReadToken()
			}
			if err == nil {
				err = to.WriteToken(jsontext.Null)
			}
		}
		if err != nil {
			return nil
		}
	}
}

// besides returns the faults that are about no part that is named already, nor about one that contains it or that it contains.
// A text of the wrong type is missing, and so is the message's text if that was html.
func besides(named, more []mail.Field) []mail.Field {
	return slices.DeleteFunc(slices.Clone(more), func(f mail.Field) bool {
		return slices.ContainsFunc(named, func(n mail.Field) bool {
			return leadsInto(f.Field, n.Field) || leadsInto(n.Field, f.Field) || f.Code == "required" && f.Field == "text" && n.Field == "html"
		})
	})
}

// leadsInto reports whether a path is another one, or leads further into it.
func leadsInto(path, into string) bool {
	rest, ok := strings.CutPrefix(path, into)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// withNamed adds the faults that were named when a request was decoded to the error of judging the rest of it.
func withNamed(named []mail.Field, err error) error {
	if len(named) == 0 {
		return err
	}
	var judged *mail.Invalid
	if errors.As(err, &judged) {
		named = append(named, besides(named, judged.Fields)...)
	}
	return &mail.Invalid{Fields: named[:min(len(named), mail.MaxFields)]}
}
