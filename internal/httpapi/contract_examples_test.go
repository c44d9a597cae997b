package httpapi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// example is one value of the contract, with what it stands for.
type example struct {
	where  string // "GET /v1/stats 200 application/json counts"
	status int    // of the response, 0 for the default and for a request
	kind   string // the media type
	schema *openapi3.SchemaRef
	value  any
}

// examplesOf lists the examples of a body, and fails when it has none.
func examplesOf(t *testing.T, where string, content openapi3.Content) []example {
	t.Helper()
	var all []example
	for _, kind := range slices.Sorted(maps.Keys(content)) {
		m := content[kind]
		one := example{where: where + " " + kind, kind: kind, schema: m.Schema}
		values := map[string]any{}
		if m.Example != nil {
			values["example"] = m.Example
		}
		for name, e := range m.Examples {
			values[name] = e.Value.Value
		}
		if len(values) == 0 {
			t.Errorf("%s has no example", one.where)
		}
		for name, v := range values {
			one.where, one.value = where+" "+kind+" "+name, v
			all = append(all, one)
		}
	}
	return all
}

func allExamples(t *testing.T) []example {
	t.Helper()
	spec, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	for path, item := range spec.doc.Paths.Map() {
		for method, op := range item.Operations() {
			where := method + " " + path
			if op.RequestBody != nil {
				all = append(all, examplesOf(t, where+" request", op.RequestBody.Value.Content)...)
			}
			for code, r := range op.Responses.Map() {
				status, _ := strconv.Atoi(code)
				for _, e := range examplesOf(t, where+" "+code, r.Value.Content) {
					e.status = status
					all = append(all, e)
				}
			}
		}
	}
	return all
}

// An example of what the server would not answer, or not take, misleads whoever reads it.
func TestEveryBodyHasAnExampleThatHolds(t *testing.T) {
	t.Parallel()
	all := allExamples(t)
	if len(all) < 100 {
		t.Fatalf("found %d examples: the search is broken", len(all))
	}
	for _, e := range all {
		if e.schema == nil { // the body of a provider
			continue
		}
		as := openapi3.VisitAsResponse()
		if strings.Contains(e.where, " request ") {
			as = openapi3.VisitAsRequest()
		}
		if err := e.schema.Value.VisitJSON(e.value, as, openapi3.MultiErrors()); err != nil {
			t.Errorf("%s: %v", e.where, err)
		}
		if e.kind == "application/problem+json" { // the table of codes has it
			p, ok := e.value.(map[string]any)
			if !ok {
				t.Fatalf("%s is no object", e.where)
			}
			code := fmt.Sprint(p["code"])
			known, ok := problemTypes[code]
			status, _ := p["status"].(float64)
			if !ok || p["type"] != problemPath+code || p["title"] != title(code) || int(status) != known.status && known.status != 0 ||
				e.status != 0 && int(status) != e.status {
				t.Errorf("%s: %v is not how %s is answered (%d %q)", e.where, p, code, known.status, title(code))
			}
		}
	}
}

// The messages of a batch are judged one by one, so their schema says nothing.
func TestMessagesOfExampleBatchesAreSends(t *testing.T) {
	t.Parallel()
	spec, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	send := spec.doc.Components.Schemas["SendRequest"].Value
	content := spec.doc.Paths.Value("/v1/send/batch").Post.RequestBody.Value.Content
	for _, e := range examplesOf(t, "batch", content) {
		batch, _ := e.value.(map[string]any)
		messages, _ := batch["messages"].([]any)
		for i, m := range messages {
			if err := send.VisitJSON(m, openapi3.VisitAsRequest()); err != nil {
				t.Errorf("%s: message %d: %v", e.where, i, err)
			}
		}
		if len(messages) == 0 {
			t.Errorf("%s has no messages", e.where)
		}
	}
}
