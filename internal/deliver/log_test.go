package deliver

import "testing"

func TestLogsKnowAddressesByTheirDomains(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"554: not verified: shop@example.com, <ann+x@example.org>": "554: not verified: *@example.com, <*@example.org>",
		"401: bad key": "401: bad key",
	} {
		if got := domainsOnly(said); got != want {
			t.Errorf("%q is logged as %q, want %q", said, got, want)
		}
	}
}
