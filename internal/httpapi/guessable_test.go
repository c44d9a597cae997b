package httpapi

import (
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/seal"
)

// A secret by which strangers could pass for the provider has a least length when it is set. One that is stored stays.
func TestSecretsThatCanBeGuessedAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const account = `"name":"a","kind":"ses","settings":{"region":"eu-west-1"},`
	a := r.do("POST", "/admin/v1/accounts", r.admin, `{`+account+`"secrets":{"api_key":"good","webhook_key":"x"}}`)
	r.want(a, 422, "invalid")
	if e := a.problem.Errors[0]; e.Field != "secrets.webhook_key" || e.Code != "too_short" {
		t.Errorf("complaint = %+v, want that the secret is too short", e)
	}
	r.want(r.do("POST", "/admin/v1/accounts", r.admin, `{`+account+`"secrets":{"api_key":"good"}}`), 201, "")
	r.want(r.do("PATCH", "/admin/v1/accounts/a", r.admin, `{"secrets":{"webhook_key":"fifteen letters"}}`), 422, "invalid")
	r.store.mu.Lock()
	r.store.secrets["a"]["webhook_key"] = seal.NewSecret("x") // from before there was a bound
	r.store.mu.Unlock()
	five := 5
	if _, err := r.client(r.admin).PatchAccount(t.Context(), "a", api.AccountRequest{Concurrency: &five}); err != nil {
		t.Errorf("another change beside a short secret that is stored: %v", err)
	}
	r.want(r.do("PATCH", "/admin/v1/accounts/a", r.admin, `{"secrets":{"webhook_key":"sixteen letters."}}`), 200, "")
}
