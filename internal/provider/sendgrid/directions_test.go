package sendgrid_test

import (
	"reflect"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
)

func TestEverySettingIsDeclared(t *testing.T) {
	t.Parallel()
	providertest.CheckSettings(t, sendgrid.Spec(), reflect.TypeFor[sendgrid.Config]())
}
