package resend

import (
	"reflect"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/providertest"
)

func TestEverySettingSaysWhichSecretsItDirects(t *testing.T) {
	t.Parallel()
	providertest.CheckSettings(t, Spec(), reflect.TypeFor[Config]())
}
