package httpapi

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestContractNamesEveryRouteAndNoOther(t *testing.T) {
	t.Parallel()
	spec, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	var promised []string
	for path, item := range spec.doc.Paths.Map() {
		for method := range item.Operations() {
			promised = append(promised, method+" "+path)
		}
	}
	have := newRig(t).routesOf()
	slices.Sort(promised)
	slices.Sort(have)
	if diff := cmp.Diff(promised, have); diff != "" {
		t.Errorf("openapi.yaml (-) and routes.go (+) differ:\n%s", diff)
	}
}

func TestEveryCallHasSummaryAndID(t *testing.T) {
	t.Parallel()
	spec, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for path, item := range spec.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Summary == "" || op.OperationID == "" || ids[op.OperationID] || len(op.Tags) != 1 {
				t.Errorf("%s %s: summary %q, operationId %q, tags %v", method, path, op.Summary, op.OperationID, op.Tags)
			}
			ids[op.OperationID] = true
		}
	}
}
