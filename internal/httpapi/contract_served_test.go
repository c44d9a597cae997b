package httpapi

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

func TestContractIsServedToAnybody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	asYAML := r.do("GET", "/openapi.yaml", "", "")
	r.want(asYAML, 200, "")
	if !bytes.Equal(asYAML.body, api.OpenAPI()) || asYAML.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("GET /openapi.yaml = %s of %d bytes, want the contract", asYAML.header.Get("Content-Type"), len(asYAML.body))
	}
	asJSON := r.do("GET", "/openapi.json", "", "")
	r.want(asJSON, 200, "")
	var same [2]any
	for i, body := range [][]byte{asYAML.body, asJSON.body} {
		doc, err := openapi3.NewLoader().LoadFromData(body)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &same[i]); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(same[0], same[1]); diff != "" {
		t.Errorf("the two forms differ (-yaml +json):\n%s", diff)
	}
}
