package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/seal"
)

// secretFile is a file that only its owner can read.
func secretFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A secret in a variable shows in the list of processes of some systems and in a container's description, so each secret may
// come from a file.
func TestEverySecretSettingMayComeFromAFile(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"DATABASE_URL": testDSN, "SECRET_KEY": testKey, "SECRET_KEY_PREVIOUS": strings.Repeat("1a", seal.KeySize), "ADMIN_KEY": "sg_0123abcd_adminKEY",
	}
	for f := range fieldsOf(reflect.TypeFor[Config]()) {
		if f.Type != reflect.TypeFor[seal.Secret]() {
			continue
		}
		name := f.Tag.Get("env")
		value, ok := good[name]
		if !ok {
			t.Errorf("SENDGATE_%s is a secret, and this test has no value for it: add one, and a setting SENDGATE_%[1]s_FILE", name)
			continue
		}
		environ := func(first string) []string {
			lines := []string{first}
			for _, required := range []string{"DATABASE_URL", "SECRET_KEY"} {
				if required != name {
					lines = append(lines, Prefix+required+"="+good[required])
				}
			}
			return lines
		}
		got := load(t, environ(Prefix+name+"_FILE="+secretFile(t, value+"\n")))
		if v, _ := reflect.ValueOf(got).FieldByIndex(f.Index).Interface().(seal.Secret); v.Reveal() != value {
			t.Errorf("%s_FILE: the setting is not what the file holds", name)
		}
		for what, lines := range map[string][]string{
			"both":      append(environ(Prefix+name+"_FILE="+secretFile(t, value)), Prefix+name+"="+value),
			"empty":     environ(Prefix + name + "_FILE=" + secretFile(t, " \n")),
			"missing":   environ(Prefix + name + "_FILE=/nonexistent/secret"),
			"too large": environ(Prefix + name + "_FILE=" + secretFile(t, strings.Repeat(value, 400))),
		} {
			_, err := Load(lines)
			if name == "SECRET_KEY_PREVIOUS" && what == "empty" && err == nil {
				continue // there need not be any
			}
			if err == nil || !strings.HasPrefix(err.Error(), Prefix+name+"_FILE:") || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), value) {
				t.Errorf("%s, %s: %v, want one line that begins with the variable and does not show the secret", name, what, err)
			}
		}
	}
}

func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

func TestSecretsOfOthersComeFromFilesToo(t *testing.T) {
	t.Parallel()
	file := secretFile(t, " a key \n")
	environ, err := WithSecrets([]string{"A=1", "B=", "B_FILE=" + file, "C=", "D=2"}, "A", "B", "C")
	if got := strings.Join(environ, "|"); err != nil || got != "B_FILE="+file+"|D=2|A=1|B=a key" {
		t.Errorf("WithSecrets = %s, %v", got, err)
	}
	_, err = WithSecrets([]string{"A=1", "A_FILE=" + file, "B_FILE=" + secretFile(t, "one\nCANARY"), "C_FILE=/nonexistent"}, "A", "B", "C")
	for _, want := range []string{"A_FILE: A is set as well", "B_FILE: ", "more than one line", "C_FILE: "} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("WithSecrets: %v, want %q in it", err, want)
		}
	}
}
