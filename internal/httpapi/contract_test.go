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

func TestContractNamesTheScopeOfEveryCall(t *testing.T) {
	t.Parallel()
	spec, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for path, item := range spec.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Security != nil && len(*op.Security) == 0 {
				named[method+" "+path] = string(open)
				continue
			}
			if op.Security == nil || len(*op.Security) != 1 || len((*op.Security)[0]["key"]) != 1 {
				t.Errorf("%s %s does not name exactly one scope", method, path)
				continue
			}
			named[method+" "+path] = (*op.Security)[0]["key"][0]
		}
	}
	want := map[string]string{}
	for route, scope := range scopeOf() {
		want[route] = string(scope)
	}
	if diff := cmp.Diff(want, named); diff != "" {
		t.Errorf("scopes in openapi.yaml differ from the table (-want +spec):\n%s", diff)
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
