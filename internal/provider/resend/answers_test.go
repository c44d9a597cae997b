package resend

import (
	"net/http"
	"slices"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// FuzzBatch checks that no answer to a batch makes a panic, one acceptance too many, or an acceptance out of anything but a 200,
// and that an answer is believed for all of its emails or for none.
func FuzzBatch(f *testing.F) {
	f.Add(200, `{"data":[{"id":"a"},{"id":"b"},{"id":"c"}]}`)
	f.Add(200, `{"data":[{"id":"a"},{"id":"c"}],"errors":[{"index":1,"message":"Invalid to field."}]}`)
	f.Add(200, `{"data":[],"errors":[{"index":2,"message":"x"},{"index":0},{"index":1,"message":"API key is invalid"}]}`)
	f.Add(200, `{"data":[{"id":"a"}],"errors":[{"index":1},{"index":1}]}`)
	f.Add(200, `{"data":null,"errors":[{"index":-1},{"index":9999999999999999999},null]}`)
	f.Add(200, `{"DATA":[{"id":"a","ID":"b"},17,"c"]}`)
	f.Add(422, `{"name":"validation_error","message":"Invalid to field."}`)
	f.Add(429, `[`)
	const n = 3
	c, err := New(Config{APIKey: seal.NewSecret("re_123456789")})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		results, ok := answer{Status: status, Body: []byte(body)}.each(n)
		if !ok {
			return
		}
		if status != http.StatusOK || len(results) != n {
			t.Fatalf("status %d brought %d results, want %d of a 200", status, len(results), n)
		}
		seen := map[string]bool{}
		for _, r := range results {
			if id := r.acceptance(); id != "" {
				if seen[id] {
					t.Fatalf("two emails have the id %q", id)
				}
				seen[id] = true
				continue
			}
			nothingSent := []provider.Class{provider.Rejected, provider.Misconfigured}
			if perr := c.failure(r); !slices.Contains(nothingSent, perr.Class) || len(perr.Detail) > provider.MaxDetail {
				t.Fatalf("verdict = %+v, want a refusal of the email", perr)
			}
		}
	})
}

func TestEveryProblemHasAReason(t *testing.T) {
	t.Parallel()
	for _, p := range problems() {
		if p.name == "" || p.why == "" || !slices.Contains(provider.Classes(), p.class) {
			t.Errorf("row %q %q is incomplete", p.name, p.text)
		}
	}
}
