package smtp

import (
	"reflect"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/providertest"
)

func TestEverySettingIsDeclared(t *testing.T) {
	t.Parallel()
	providertest.CheckSettings(t, Spec(), reflect.TypeFor[settings]())
}
