package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/sendgate/sendgate/internal/seal"
)

// Load reads the environment (in the form of os.Environ) and checks it. The error joins all problems, one line each,
// without secrets. A variable that is set but empty counts as not set.
func Load(environ []string) (Config, error) {
	var c Config
	values := env.ToMap(environ)
	problems := parse(&c, values)
	problems = append(problems, unknown(values)...)
	if err := c.readFiles(); err != nil {
		problems = append(problems, err)
	}
	if len(problems) == 0 {
		return c, c.Validate()
	}
	return c, errors.Join(append(problems, c.Validate())...)
}

// Waits reads only how long unknown messages wait: unknown is the wait under the policies resend and never, reconcile that
// under reconcile. It is for commands that need no other setting.
func Waits(environ []string) (unknown, reconcile time.Duration, err error) {
	var c Config
	if problems := parse(&c, env.ToMap(environ)); len(problems) > 0 {
		return 0, 0, errors.Join(problems...)
	}
	return c.UnknownWait, c.ReconcileDeadline, nil
}

// Dump lists the settings for the log at start, one attribute each. The name is that of the variable in lower case, without
// its prefix. For a secret it shows only whether it is set.
func (c *Config) Dump() []slog.Attr {
	v := reflect.ValueOf(*c)
	attrs := make([]slog.Attr, 0, v.NumField())
	for i := range v.NumField() {
		name := strings.ToLower(v.Type().Field(i).Tag.Get("env"))
		switch field := v.Field(i).Interface().(type) {
		case seal.Secret:
			attrs = append(attrs, slog.Bool(name+"_set", !field.IsZero()))
		case time.Duration:
			attrs = append(attrs, slog.String(name, field.String()))
		default:
			attrs = append(attrs, slog.String(name, fmt.Sprint(field)))
		}
	}
	return attrs
}

func options(values map[string]string) env.Options {
	return env.Options{
		Prefix:      Prefix,
		Environment: values,
		FuncMap:     map[reflect.Type]env.ParserFunc{reflect.TypeFor[time.Duration](): parseDuration},
	}
}

// parse fills c and returns an error for each value that can't be read, with the name of its variable. Such a field gets its
// default, so that checks between fields do not report it a second time.
func parse(c *Config, values map[string]string) []error {
	err := env.ParseWithOptions(c, options(values))
	var all env.AggregateError
	if !errors.As(err, &all) {
		return nil
	}
	var problems []error
	sane := maps.Clone(values)
	for _, e := range all.Errors {
		var pe env.ParseError
		if !errors.As(e, &pe) {
			problems = append(problems, oneLine(e))
			continue
		}
		name := variable(pe.Name)
		delete(sane, name)
		problems = append(problems, fmt.Errorf("%s: %w", name, oneLine(pe.Err)))
	}
	*c = Config{}
	if err := env.ParseWithOptions(c, options(sane)); err != nil {
		problems = append(problems, oneLine(err))
	}
	return problems
}

// variable returns the name of the variable that sets a field.
func variable(field string) string {
	f, _ := reflect.TypeFor[Config]().FieldByName(field)
	return Prefix + f.Tag.Get("env")
}

// names lists the settings, sorted.
func names() []string {
	t := reflect.TypeFor[Config]()
	list := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		list = append(list, variable(t.Field(i).Name))
	}
	slices.Sort(list)
	return list
}

func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

// readFiles reads the secrets whose settings name a file.
func (c *Config) readFiles() error {
	return errors.Join(
		readFile("DATABASE_URL", c.DatabaseURLFile, &c.DatabaseURL, oneText),
		readFile("SECRET_KEY", c.SecretKeyFile, &c.SecretKey, func(text string) (string, error) {
			key, err := seal.ParseKey(text)
			return hex.EncodeToString(key), err
		}),
		readFile("SECRET_KEY_PREVIOUS", c.SecretKeyPreviousFile, &c.SecretKeyPrevious, func(text string) (string, error) {
			keys, err := seal.ParseKeys(text)
			texts := make([]string, len(keys))
			for i, key := range keys {
				texts[i] = hex.EncodeToString(key)
			}
			return strings.Join(texts, ","), err
		}),
		readFile("ADMIN_KEY", c.AdminKeyFile, &c.AdminKey, oneText),
	)
}

// readFile puts the secret of a file into the setting of that name.
func readFile(setting, file string, into *seal.Secret, parse func(string) (string, error)) error {
	if file == "" {
		return nil
	}
	if !into.IsZero() {
		return bothSet(Prefix + setting)
	}
	text, err := readSecret(file, parse)
	if err != nil {
		return fmt.Errorf("%s_FILE: %w", Prefix+setting, err)
	}
	*into = seal.NewSecret(text)
	return nil
}
