package sendgate_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/sendgate/sendgate/internal/provider/smtp"
)

// unset returns a value of docker-compose.yml as it is if .env sets none of its variables.
func unset(value string) string {
	inner := regexp.MustCompile(`\$\{[A-Z_]+:-([^${}]*)\}`)
	for inner.MatchString(value) {
		value = inner.ReplaceAllString(value, "$1")
	}
	return value
}

// In the compose file sendgate gets the bounces of the relay. The relay must accept mail for the domain that the account
// sends from, and must deliver it to the socket on which sendgate listens, in a volume that both share.
func TestComposeBringsTheBouncesOfItsRelayBack(t *testing.T) {
	t.Parallel()
	var compose struct {
		Volumes  map[string]any
		Services map[string]struct {
			Volumes     []string
			Environment map[string]string
			Build       yaml.Node
		}
	}
	if err := yaml.Unmarshal([]byte(text(t, "docker-compose.yml")), &compose); err != nil {
		t.Fatal(err)
	}
	sendgate, relay := compose.Services["sendgate"], compose.Services["relay"]
	var build struct {
		Args             map[string]string
		DockerfileInline string `yaml:"dockerfile_inline"`
	}
	if err := relay.Build.Decode(&build); err != nil {
		t.Fatal(err)
	}

	for _, url := range []string{unset(sendgate.Environment["SMTP_RELAY_URL"]), strings.Replace(unset(sendgate.Environment["SMTP_RELAY_URL"]), "relay.invalid", "mail.example.com", 1)} {
		settings, secrets, err := smtp.ParseURL(url)
		if err != nil {
			t.Fatalf("SMTP_RELAY_URL %s: %v", url, err)
		}
		c, err := smtp.ParseConfig(settings, secrets)
		if err != nil || c.BounceDomain == "" || c.VERPKey.IsZero() {
			t.Errorf("the account of %s has no bounce address: %v", url, err)
		}
		if domain := unset(build.Args["RELAY_BOUNCE_DOMAIN"]); strings.Contains(url, "invalid") && c.BounceDomain != domain {
			t.Errorf("the account's bounces go to %s, and the relay takes those to %s", c.BounceDomain, domain)
		}
	}
	if domain := build.Args["RELAY_BOUNCE_DOMAIN"]; !strings.Contains(sendgate.Environment["SMTP_RELAY_URL"], "bounce_domain="+domain) {
		t.Errorf("the account's bounce domain and the relay's (%s) are not of the same variables", domain)
	}

	path, ok := strings.CutPrefix(sendgate.Environment["SENDGATE_LMTP_LISTEN"], "unix:")
	folder := path[:strings.LastIndexByte(path, '/')+1]
	if !ok || folder == "" {
		t.Fatalf("SENDGATE_LMTP_LISTEN = %q, want a socket", sendgate.Environment["SENDGATE_LMTP_LISTEN"])
	}
	folder = strings.TrimSuffix(folder, "/")
	mount := "bounces:" + folder
	if _, ok := compose.Volumes["bounces"]; !ok || !slices.Contains(sendgate.Volumes, mount) || !slices.Contains(relay.Volumes, mount) {
		t.Errorf("sendgate has %q and the relay %q, want the volume %s in both", sendgate.Volumes, relay.Volumes, mount)
	}
	for what, lines := range map[string][]string{
		text(t, "docker/relay.cf"): {
			"\nrelay_domains = $sendgate_bounce_domain\n", "\ntransport_maps = inline:{ { $sendgate_bounce_domain = lmtp:unix:" + path + " } }\n",
		},
		build.DockerfileInline: {
			"COPY docker/relay.cf /etc/postfix/main.cf\n", `"sendgate_bounce_domain = $$RELAY_BOUNCE_DOMAIN"`, "\nARG RELAY_BOUNCE_DOMAIN\n",
			"--owner=65532 --group=65532 --mode=0755 " + folder + " ", `postconf -F '*/*/chroot = n'`,
		},
		text(t, "Dockerfile"): {"\nUSER 65532:65532\n"},
	} {
		for _, line := range lines {
			if !strings.Contains(what, line) {
				t.Errorf("want %q in\n%s", line, what)
			}
		}
	}
	if slices.Contains(strings.Split(text(t, ".dockerignore"), "\n"), "docker") {
		t.Error("docker/relay.cf is left out of the build")
	}
}
