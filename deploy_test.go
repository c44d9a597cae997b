package sendgate_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// service has the fields of a service in docker-compose.yml that the tests check.
type service struct {
	Image       string            `yaml:"image"`
	ReadOnly    bool              `yaml:"read_only"`
	Privileged  bool              `yaml:"privileged"`
	CapDrop     []string          `yaml:"cap_drop"`
	CapAdd      []string          `yaml:"cap_add"`
	SecurityOpt []string          `yaml:"security_opt"`
	MemLimit    string            `yaml:"mem_limit"`
	PidsLimit   int               `yaml:"pids_limit"`
	Ports       []string          `yaml:"ports"`
	Profiles    []string          `yaml:"profiles"`
	Volumes     []string          `yaml:"volumes"`
	Environment map[string]string `yaml:"environment"`
}

// text reads a file of the repository.
func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// services parses docker-compose.yml, anchors included.
func services(t *testing.T) map[string]service {
	t.Helper()
	var compose struct {
		Services map[string]service `yaml:"services"`
	}
	if err := yaml.Unmarshal([]byte(text(t, "docker-compose.yml")), &compose); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sendgate", "migrate", "postgres", "relay", "prometheus", "grafana"} {
		if _, ok := compose.Services[want]; !ok {
			t.Fatalf("docker-compose.yml has no service %s", want)
		}
	}
	return compose.Services
}

func TestComposeServicesAreHardened(t *testing.T) {
	t.Parallel()
	for name, s := range services(t) {
		for what, ok := range map[string]bool{
			"read_only: true":                !s.Privileged && s.ReadOnly,
			"cap_drop: [ALL]":                slices.Equal(s.CapDrop, []string{"ALL"}),
			"no-new-privileges":              slices.Contains(s.SecurityOpt, "no-new-privileges:true"),
			"mem_limit":                      s.MemLimit != "",
			"pids_limit":                     s.PidsLimit > 0,
			"an image with a version":        strings.Contains(s.Image, ":") && !strings.HasSuffix(s.Image, ":latest"),
			"no dangerous capability":        !slices.Contains(s.CapAdd, "SYS_ADMIN") && !slices.Contains(s.CapAdd, "ALL"),
			"ports on loopback only, if any": !slices.ContainsFunc(s.Ports, func(p string) bool { return !strings.HasPrefix(p, "127.0.0.1:") }),
		} {
			if !ok {
				t.Errorf("service %s lacks: %s", name, what)
			}
		}
	}
	if added := services(t)["sendgate"].CapAdd; len(added) > 0 {
		t.Errorf("sendgate is given capabilities %v, and needs none", added)
	}
}

// Behind Docker's ports all clients come from one address, unless sendgate trusts the proxy in front.
func TestComposeNamesItsProxies(t *testing.T) {
	t.Parallel()
	env := services(t)["sendgate"].Environment
	if env["SENDGATE_BEHIND_PROXY"] == "true" && !strings.Contains(env["SENDGATE_TRUSTED_PROXIES"], "172.16.0.0/12") {
		t.Errorf("SENDGATE_TRUSTED_PROXIES = %q, want the networks that Docker makes", env["SENDGATE_TRUSTED_PROXIES"])
	}
}

func TestComposeHoldsNoSecretAndNoDefaultForOne(t *testing.T) {
	t.Parallel()
	required := regexp.MustCompile(`\$\{(SENDGATE_SECRET_KEY|SENDGATE_ADMIN_KEY|POSTGRES_PASSWORD|SENDGATE_OWNER_PASSWORD|SENDGATE_SERVE_PASSWORD):\?[^}]+\}`)
	secret := regexp.MustCompile(`(?i)(secret|password|_key|token|database_url)`)
	for name, s := range services(t) {
		for variable, value := range s.Environment {
			optional := strings.HasSuffix(value, ":-}")
			if secret.MatchString(variable) && !optional && !required.MatchString(value) {
				t.Errorf("service %s: %s = %q, want it taken from .env and refused when missing", name, variable, value)
			}
		}
	}
}

// The service may read and write rows, and only the migration may change the schema. Neither is the superuser or knows its
// password.
func TestComposeGivesEachPartTheRoleItNeeds(t *testing.T) {
	t.Parallel()
	all := services(t)
	for name, role := range map[string]string{"sendgate": "sendgate_serve", "migrate": "sendgate_owner"} {
		if dsn := all[name].Environment["SENDGATE_DATABASE_URL"]; !strings.HasPrefix(dsn, "postgres://"+role+":${SENDGATE_") {
			t.Errorf("service %s connects to %s, want the role %s with its own password", name, dsn, role)
		}
		for variable, value := range all[name].Environment {
			if strings.Contains(value, "${POSTGRES_PASSWORD") || name == "sendgate" && strings.Contains(value, "SENDGATE_OWNER_PASSWORD") {
				t.Errorf("service %s knows in %s a password that it does not need", name, variable)
			}
		}
		if !strings.Contains(text(t, "docker/roles.sql"), "'"+role+"'") {
			t.Errorf("docker/roles.sql does not make the role %s", role)
		}
	}
	if user := all["postgres"].Environment["POSTGRES_USER"]; user != "postgres" {
		t.Errorf("the superuser is %q, want a role that nothing else uses", user)
	}
	if info, err := os.Stat("docker/roles.sh"); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("docker/roles.sh is not executable: %v, %v", info, err)
	}
}

// Prometheus and Grafana start only if somebody asks for them, and find what they are about.
func TestComposeMonitorsByAProfile(t *testing.T) {
	t.Parallel()
	for name, s := range services(t) {
		if want := name == "prometheus" || name == "grafana"; slices.Contains(s.Profiles, "monitoring") != want {
			t.Errorf("service %s has the profiles %q", name, s.Profiles)
		}
		for _, volume := range s.Volumes {
			if from, _, _ := strings.Cut(volume, ":"); strings.HasPrefix(from, "./") {
				if _, err := os.Stat(from); err != nil {
					t.Errorf("service %s mounts %s: %v", name, from, err)
				}
			}
		}
	}
	var prometheus struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			DNS []struct {
				Names []string
				Port  int
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(text(t, "deploy/prometheus/prometheus.yml")), &prometheus); err != nil {
		t.Fatal(err)
	}
	if target := prometheus.ScrapeConfigs[0].DNS[0]; !slices.Equal(target.Names, []string{"sendgate"}) ||
		services(t)["sendgate"].Environment["SENDGATE_OPS_LISTEN"] != fmt.Sprintf("0.0.0.0:%d", target.Port) {
		t.Errorf("Prometheus asks %+v, and sendgate answers at %s", target, services(t)["sendgate"].Environment["SENDGATE_OPS_LISTEN"])
	}
	var sources struct {
		Datasources []struct{ URL string }
	}
	if err := yaml.Unmarshal([]byte(text(t, "deploy/grafana/provisioning/datasources/prometheus.yaml")), &sources); err != nil {
		t.Fatal(err)
	}
	if len(sources.Datasources) != 1 || sources.Datasources[0].URL != "http://prometheus:9090" {
		t.Errorf("Grafana asks %+v, want the service prometheus", sources)
	}
}

func TestImageBuildsWithTheGoOfTheModule(t *testing.T) {
	t.Parallel()
	mod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(text(t, "go.mod"))
	image := regexp.MustCompile(`(?m)^FROM golang:(\d+\.\d+)`).FindStringSubmatch(text(t, "Dockerfile"))
	if mod == nil || image == nil || mod[1] != image[1] {
		t.Errorf("go.mod has %q and Dockerfile %q, want the same version", mod, image)
	}
}

func TestImageRunsWithoutRootAndShell(t *testing.T) {
	t.Parallel()
	_, final, ok := strings.Cut(text(t, "Dockerfile"), "\nFROM scratch\n")
	if !ok {
		t.Fatal("the last stage of Dockerfile is not FROM scratch")
	}
	for _, want := range []string{
		"\nUSER 65532:65532\n", `CMD ["/sendgate", "doctor", "--ready"]`, `ENTRYPOINT ["/sendgate"]`, `CMD ["serve"]`,
	} {
		if !strings.Contains(final, want) {
			t.Errorf("the last stage of Dockerfile lacks %q", want)
		}
	}
}

func TestBuildContextLeavesSecretsOut(t *testing.T) {
	t.Parallel()
	lines := strings.Split(text(t, ".dockerignore"), "\n")
	for _, want := range []string{".sendgate", "**/.sendgate", ".env"} {
		if !slices.Contains(lines, want) {
			t.Errorf(".dockerignore lacks %s", want)
		}
	}
}

func TestChecksRunTheSameEverywhere(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(".ci/run")
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf(".ci/run is not executable: %v, %v", info, err)
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct {
				Run string `yaml:"run"`
			} `yaml:"steps"`
		} `yaml:"jobs"`
	}
	if err := yaml.Unmarshal([]byte(text(t, ".github/workflows/ci.yml")), &workflow); err != nil {
		t.Fatal(err)
	}
	for _, step := range workflow.Jobs["checks"].Steps {
		if strings.TrimSpace(step.Run) == ".ci/run" {
			return
		}
	}
	t.Error("the hosted checks do not call .ci/run")
}
