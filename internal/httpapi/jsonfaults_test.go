package httpapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// faultsOf sends a body and lists what is wrong with it.
func (r *rig) faultsOf(path, key, body string) []string {
	r.t.Helper()
	a := r.do("POST", path, key, body)
	r.want(a, 422, "invalid")
	var got []string
	for _, f := range a.problem.Errors {
		got = append(got, f.Field+" "+f.Code)
	}
	slices.Sort(got)
	return got
}

// A part of the wrong type hides no other fault: all are named at once, each once, and none that only follows from another.
func TestEveryFaultIsNamedBesideAWrongType(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, want := range map[string][]string{
		`{"from":"shop@example.com","to":"ann","subject":5,"text":"x"}`:                                  {"subject wrong_type", "to[0] invalid_address"},
		`{"from":5,"to":7,"subject":[],"text":{}}`:                                                       {"from wrong_type", "subject wrong_type", "text wrong_type", "to wrong_type"},
		`{"from":"shop@example.com","to":["ann@example.org",5,"bob",6],"text":"x"}`:                      {"to[1] wrong_type", "to[2] invalid_address", "to[3] wrong_type"},
		`{"from":{"email":5,"name":6},"to":[{"email":[]},{"mail":"x"},"ann@example.org"],"text":"x"}`:    {"from.email wrong_type", "from.name wrong_type", "to[0].email wrong_type", "to[1].mail unknown_field"},
		`{"form":"shop@example.com","from":"shop@example.com","to":"ann@example.org","html":5}`:          {"form unknown_field", "html wrong_type"},
		`{"from":"shop@example.com","to":"ann@example.org","text":"x","metadata":{"a":1,"b":"c","d":2}}`: {"metadata.a wrong_type", "metadata.d wrong_type"},
		`{"from":"shop@example.com","to":"ann@example.org","text":"x","attachments":[{"content":5,"filename":6},7,{"x":1,"filename":"a.txt","content":"?"}]}`: {
			"attachments[0].content wrong_type", "attachments[0].filename wrong_type", "attachments[1] wrong_type", "attachments[2].content invalid_base64", "attachments[2].x unknown_field",
		},
		`{"from":"shop@example.com","to":"ann@example.org","text":"a\u0000b","subject":5,"send_at":"soon"}`: {"send_at invalid_time", "subject wrong_type", "text control_char"},
		`{"from":"shop@example.com","subject":5,"text":"x"}`:                                                {"subject wrong_type", "to required"},
	} {
		if diff := cmp.Diff(want, r.faultsOf("/v1/send", r.send, body)); diff != "" {
			t.Errorf("%s: faults (-want +got):\n%s", body, diff)
		}
		if diff := cmp.Diff(want, r.faultsOf("/admin/v1/route/explain", r.admin, body)); diff != "" {
			t.Errorf("explain %s: faults (-want +got):\n%s", body, diff)
		}
	}
	// Other requests name what does not fit at once, too.
	if diff := cmp.Diff([]string{"concurrency wrong_type", "kind wrong_type", "nam unknown_field"},
		r.faultsOf("/admin/v1/accounts", r.admin, `{"nam":"a","kind":5,"concurrency":"many"}`)); diff != "" {
		t.Errorf("faults of an account (-want +got):\n%s", diff)
	}
}

// Naming costs a bounded part more than reading: of a long text it is the first fault, and of many faults the first fifty.
func TestNamingOfFaultsIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := strings.Repeat("x", namingBudget)
	if got := r.faultsOf("/v1/send", r.send, `{"from":5,"to":5,"text":"`+long+`"}`); !slices.Equal(got, []string{"from wrong_type"}) {
		t.Errorf("faults of a long text = %v, want the first one", got)
	}
	many := `{"from":"shop@example.com","text":"x","to":[` + strings.Repeat("5,", 200) + `5]}`
	if got := r.faultsOf("/v1/send", r.send, many); len(got) != 50 {
		t.Errorf("%d faults of 201 are named, want 50", len(got))
	}
}
