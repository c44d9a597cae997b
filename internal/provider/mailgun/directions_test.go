package mailgun_test

import (
	"reflect"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

func TestEverySettingIsDeclared(t *testing.T) {
	t.Parallel()
	providertest.CheckSettings(t, mailgun.Spec(), reflect.TypeFor[mailgun.Config]())
}
