package postmark_test

import (
	"reflect"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

func TestEverySettingIsDeclared(t *testing.T) {
	t.Parallel()
	providertest.CheckSettings(t, postmark.Spec(), reflect.TypeFor[postmark.Config]())
}
