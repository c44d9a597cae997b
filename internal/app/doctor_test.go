package app

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/route"
)

func TestDoctorTakesANewInstallationForHealthy(t *testing.T) {
	t.Parallel()
	none := noAccounts(nil)
	if none.OK || none.Level != "warn" || none.Fix == "" {
		t.Errorf("no account anywhere: %+v, want a warning that says how to get one", none)
	}
	soon := noAccounts([]route.Account{{Name: "sendgrid"}, {Name: "ses"}})
	if !soon.OK || !strings.Contains(soon.Detail, "sendgrid, ses") {
		t.Errorf("accounts of the environment: %+v, want them named", soon)
	}
}
