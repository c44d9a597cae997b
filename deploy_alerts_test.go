package sendgate_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v4"

	"github.com/sendgate/sendgate/internal/telemetry"
)

// alert is one rule of deploy/prometheus/alerts.yml.
type alert struct {
	Alert       string
	Expr        string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal([]byte(text(t, "deploy/prometheus/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 10 {
		t.Fatalf("found %d alerts: the search is broken", len(all))
	}
	return all
}

// exported are the names of the metrics of the program.
func exported(t *testing.T) []string {
	t.Helper()
	var names []string
	fqName := regexp.MustCompile(`fqName: "([^"]+)"`) // prometheus.Desc has no method for it
	fields := reflect.ValueOf(*telemetry.New(prometheus.NewRegistry()))
	for i := range fields.NumField() {
		descs := make(chan *prometheus.Desc, 8)
		fields.Field(i).Interface().(prometheus.Collector).Describe(descs)
		close(descs)
		for d := range descs {
			names = append(names, fqName.FindStringSubmatch(d.String())[1])
		}
	}
	return names
}

var metricName = regexp.MustCompile(`sendgate_[a-z_]+`)

// unknownMetrics returns the metrics of an expression that the program does not export.
func unknownMetrics(known []string, expr string) []string {
	var unknown []string
	for _, name := range metricName.FindAllString(expr, -1) {
		plain := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			plain = strings.TrimSuffix(plain, suffix)
		}
		if !slices.Contains(known, name) && !slices.Contains(known, plain) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

func TestEachAlertIsAboutAMetricThatExistsAndIsExplained(t *testing.T) {
	t.Parallel()
	known, runbook := exported(t), text(t, "docs/runbook.md")
	for _, a := range alerts(t) {
		if !metricName.MatchString(a.Expr) {
			t.Errorf("%s is about no metric: %s", a.Alert, a.Expr)
		}
		for _, name := range unknownMetrics(known, a.Expr) {
			t.Errorf("%s is about %s, which the program does not export", a.Alert, name)
		}
		page, anchor, _ := strings.Cut(a.Annotations["runbook"], "#")
		_, section, found := strings.Cut(runbook, `<a id="`+anchor+`"></a>`)
		section, _, _ = strings.Cut(section, "<a id=")
		if page != "docs/runbook.md" || !found {
			t.Errorf("%s has no section in docs/runbook.md: %q", a.Alert, a.Annotations["runbook"])
		}
		for _, part := range []string{"(" + a.Alert + ")", "**Means**", "**Look at**", "**Do**"} {
			if !strings.Contains(section, part) {
				t.Errorf("the section %s of docs/runbook.md lacks %s", anchor, part)
			}
		}
		if a.Labels["severity"] == "" || a.Annotations["summary"] == "" {
			t.Errorf("%s has no severity or no summary", a.Alert)
		}
	}
}

var alertTests = []string{"deploy/prometheus/alerts_test.yml", "deploy/prometheus/alerts_day_test.yml"}

// Each alert fires in a case of the files, and does not before and after.
func TestEachAlertHasACaseInWhichItFiresAndResolves(t *testing.T) {
	t.Parallel()
	story := map[string]string{}
	for _, name := range alertTests {
		var file struct {
			Tests []struct {
				Cases []struct {
					Name string `yaml:"alertname"`
					Want []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal([]byte(text(t, name)), &file); err != nil {
			t.Fatal(err)
		}
		for _, test := range file.Tests {
			for _, c := range test.Cases {
				story[c.Name] += map[bool]string{true: "-", false: "+"}[len(c.Want) == 0]
			}
		}
	}
	for _, a := range alerts(t) {
		if s := story[a.Alert]; !strings.Contains(s, "-+") || !strings.Contains(s, "+-") && a.Alert != "SendgateBooksUnchecked" {
			t.Errorf("%s: its cases are %q, want one before, one in which it fires (+) and one after", a.Alert, s)
		}
	}
}

// promtool runs a command of Prometheus' own checker.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian package prometheus): the rules are not run")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlertsFireAsTheirCasesSay(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "deploy/prometheus/alerts.yml")
	promtool(t, append([]string{"test", "rules"}, alertTests...)...)
}

func TestGrafanaShowsMetricsThatExist(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("deploy/grafana/sendgate.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title  string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	if len(board.Panels) < 8 || board.Title == "" {
		t.Fatalf("%q has %d panels", board.Title, len(board.Panels))
	}
	known := exported(t)
	for _, p := range board.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, name := range unknownMetrics(known, target.Expr) {
				t.Errorf("panel %q shows %s, which the program does not export", p.Title, name)
			}
		}
	}
}
