package providertest

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
)

// CheckSettings compares a Spec with the struct that the settings are read into: each field is declared, with secrets that the
// kind has, and nothing else is declared. An undeclared setting could send secrets elsewhere without a request for them.
func CheckSettings(t *testing.T, spec provider.Spec, settings reflect.Type) {
	t.Helper()
	read := fieldNames(settings)
	for _, name := range read {
		if _, ok := spec.Settings[name]; !ok {
			t.Errorf("setting %s is not declared: say in Spec.Settings of which secrets it decides where or how they are sent", name)
		}
	}
	for name, secrets := range spec.Settings {
		if !slices.Contains(read, name) {
			t.Errorf("setting %s is declared, and not read", name)
		}
		for _, secret := range secrets {
			if !slices.Contains(spec.Secrets, secret) {
				t.Errorf("setting %s directs %s, which is no secret of this kind", name, secret)
			}
		}
	}
}

// fieldNames returns the JSON names of a struct's fields, including those of embedded structs.
func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, fieldNames(f.Type)...)
		case name != "-":
			names = append(names, name)
		}
	}
	return names
}
