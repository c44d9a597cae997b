package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtp"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// The variables from which Accounts makes accounts. All but SENDGATE_SES are the conventional names of their providers.
const (
	envSendGridKey   = "SENDGRID_API_KEY"
	envMailgunKey    = "MAILGUN_API_KEY"
	envMailgunDomain = "MAILGUN_DOMAIN"
	envMailgunBase   = "MAILGUN_API_BASE" // such as https://api.eu.mailgun.net
	envPostmarkToken = "POSTMARK_SERVER_TOKEN"
	envResendKey     = "RESEND_API_KEY"
	envAWSRegion     = "AWS_REGION"
	envSES           = "SENDGATE_SES" // 1 for an account with the AWS default credential chain
	envRelay         = "SMTP_RELAY_URL"
)

// SecretVariables lists those of the variables that hold a secret. Their values may come from files: package config reads these.
// The AWS SDK has variables of its own for files.
func SecretVariables() []string {
	return []string{envSendGridKey, envMailgunKey, envPostmarkToken, envResendKey, envRelay}
}

// Accounts turns the conventional variables of the environment (the form of os.Environ) into accounts and their secrets by
// account name. Each account has the name of its kind, with the documented limits and the concurrency of its kind. The error
// joins all problems, one line each: it names the variable and holds no secret. A variable that is set but empty counts as not
// set.
func Accounts(environ []string) ([]route.Account, map[string]map[string]seal.Secret, error) {
	e := environment{values: values(environ), secrets: map[string]map[string]seal.Secret{}}
	e.key(envSendGridKey, "sendgrid", "api_key")
	e.mailgun()
	e.key(envPostmarkToken, "postmark", "server_token")
	e.key(envResendKey, "resend", "api_key")
	e.ses()
	e.smtp()
	if err := errors.Join(e.problems...); err != nil {
		return nil, nil, err
	}
	return e.accounts, e.secrets, nil
}

type environment struct {
	values   map[string]string
	accounts []route.Account
	secrets  map[string]map[string]seal.Secret
	problems []error
}

func values(environ []string) map[string]string {
	m := map[string]string{}
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok {
			m[name] = value
		}
	}
	return m
}

// key makes an account of a kind that needs one secret and no settings.
func (e *environment) key(variable string, kind provider.Kind, secret string) {
	if value := e.values[variable]; value != "" {
		e.add(variable, kind, nil, map[string]string{secret: value})
	}
}

// mailgun makes an account from the key and the domain, which must be set together.
func (e *environment) mailgun() {
	key, domain := e.values[envMailgunKey], e.values[envMailgunDomain]
	switch {
	case key == "" && domain == "":
	case domain == "":
		e.complain(envMailgunKey, "is set without %s; set both, or none", envMailgunDomain)
	case key == "":
		e.complain(envMailgunDomain, "is set without %s; set both, or none", envMailgunKey)
	default:
		settings := map[string]any{"domain": domain}
		if base := e.values[envMailgunBase]; base != "" {
			settings["base_url"] = base
		}
		e.add(envMailgunKey, "mailgun", settings, map[string]string{"api_key": key})
	}
}

// ses must be requested explicitly: AWS_REGION is set in many places that have nothing to do with mail.
func (e *environment) ses() {
	value := e.values[envSES]
	if value == "" {
		return
	}
	wanted, err := strconv.ParseBool(value)
	region := e.values[envAWSRegion]
	switch {
	case err != nil:
		e.complain(envSES, "want 1 or 0")
	case !wanted:
	case region == "":
		e.complain(envSES, "needs %s, such as eu-west-1", envAWSRegion)
	default:
		e.add(envSES, "ses", map[string]any{"region": region, "use_default_credentials": true}, nil)
	}
}

func (e *environment) smtp() {
	url := e.values[envRelay]
	if url == "" {
		return
	}
	settings, secrets, err := smtp.ParseURL(url)
	if err != nil {
		e.complain(envRelay, "%w", err)
		return
	}
	e.account(envRelay, smtp.Kind, settings, secrets)
}

// add makes an account from plain values.
func (e *environment) add(variable string, kind provider.Kind, settings map[string]any, plain map[string]string) {
	if settings == nil {
		settings = map[string]any{}
	}
	text, err := json.Marshal(settings)
	if err != nil {
		e.complain(variable, "%w", err)
		return
	}
	secrets := map[string]seal.Secret{}
	for name, value := range plain {
		secrets[name] = seal.NewSecret(value)
	}
	e.account(variable, kind, text, secrets)
}

// account validates the account by opening its adapter, and adds it.
func (e *environment) account(variable string, kind provider.Kind, settings []byte, secrets map[string]seal.Secret) {
	p, can, err := New(kind, settings, secrets)
	if err == nil {
		err = p.Close()
	}
	if err != nil {
		e.complain(variable, "%w", err)
		return
	}
	spec, _ := Spec(kind)
	e.accounts = append(e.accounts, route.Account{
		Name: string(kind), Kind: kind, Settings: settings, SecretFields: slices.Sorted(maps.Keys(secrets)),
		Capabilities: can, Concurrency: spec.Concurrency, Limits: DocumentedLimits(kind),
	})
	e.secrets[string(kind)] = secrets
}

func (e *environment) complain(variable, format string, args ...any) {
	e.problems = append(e.problems, oneLine(fmt.Errorf(variable+": "+format, args...)))
}

// oneLine puts the message of joined errors on one line.
func oneLine(err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}
