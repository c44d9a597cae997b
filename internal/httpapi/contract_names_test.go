package httpapi

import (
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// Generators make one type of each component, and one of each enum or object inside a schema, named after both. Two of
// the same name, in whatever case, stop them.
func TestNamesOfTheContractDoNotCollide(t *testing.T) {
	t.Parallel()
	spec, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	c := spec.doc.Components
	taken := map[string]string{}
	claim := func(name, whose string) {
		t.Helper()
		name = strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
		if other, clash := taken[name]; clash {
			t.Errorf("%s and %s make a type of the same name: rename one", whose, other)
		}
		taken[name] = whose
	}
	for name, s := range c.Schemas {
		claim(name, "schema "+name)
		claimInside(s.Value, name, func(n string) { claim(n, "what is inside of schema "+name) })
	}
	for name := range c.Parameters {
		claim(name, "parameter "+name)
	}
	for name, r := range c.Responses {
		// What has no headers and holds the schema of its own name is the same type.
		if m := r.Value.Content["application/json"]; len(r.Value.Headers) == 0 && m != nil && m.Schema.Ref == "#/components/schemas/"+name {
			continue
		}
		if m := r.Value.Content["application/problem+json"]; m != nil && m.Schema.Ref == "#/components/schemas/"+name {
			continue
		}
		claim(name, "response "+name)
	}
	for name := range c.Headers {
		claim(name, "header "+name)
	}
	for name := range c.RequestBodies {
		claim(name, "request body "+name)
	}
	for name := range c.SecuritySchemes {
		claim(name, "security scheme "+name)
	}
}

// claimInside names the enums and objects of a schema that have no name of their own.
func claimInside(s *openapi3.Schema, name string, claim func(string)) {
	for property, p := range s.Properties {
		if p.Ref != "" || p.Value == nil {
			continue
		}
		if len(p.Value.Enum) > 0 || len(p.Value.Properties) > 0 {
			claim(name + property)
		}
		claimInside(p.Value, name+property, claim)
	}
	if s.Items != nil && s.Items.Ref == "" {
		if len(s.Items.Value.Enum) > 0 || len(s.Items.Value.Properties) > 0 {
			claim(name + "item")
		}
		claimInside(s.Items.Value, name+"item", claim)
	}
}
