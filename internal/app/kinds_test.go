package app

import (
	"slices"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

// accountNames are the accounts of a bench, one of each kind, in the order of their names.
func accountNames() []string { return kindsWith(func(provider.Spec) bool { return true }) }

// kindsWith are the kinds of which something is true, in the order of their names.
func kindsWith(has func(provider.Spec) bool) []string {
	var names []string
	for _, s := range catalog.Specs() {
		if has(s) {
			names = append(names, string(s.Kind))
		}
	}
	slices.Sort(names)
	return names
}

// hookKinds are the kinds whose events come over HTTP.
func hookKinds() []string {
	return slices.DeleteFunc(accountNames(), func(kind string) bool { return emulates(kind).SMTP })
}

func specOf(kind string) provider.Spec {
	s, _ := catalog.Spec(provider.Kind(kind))
	return s
}

// emulates describes the emulator of a kind.
func emulates(kind string) emulator.Kind {
	for _, k := range emulated.Kinds() {
		if k.Name == kind {
			return k
		}
	}
	panic("the catalog of emulators lacks the kind " + kind)
}

// everyAccount has the same value for each account.
func everyAccount[V any](v V) map[string]V {
	all := map[string]V{}
	for _, account := range accountNames() {
		all[account] = v
	}
	return all
}

// entry is the entry of a kind in a table of the tests. It fails the test if there is none: a new kind needs one.
func entry[V any](t *testing.T, table string, entries map[string]V, kind string) V {
	t.Helper()
	v, ok := entries[kind]
	if !ok {
		t.Fatalf("table %s has no entry for the kind %s", table, kind)
	}
	return v
}
