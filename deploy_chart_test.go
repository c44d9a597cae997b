//go:build drill

package sendgate_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sendgate/sendgate/internal/config"
)

const (
	chart = "../../deploy/helm/sendgate" // from testdata/chart
	// Helm that was built as a module takes every cluster for an old one.
	cluster = "--kube-version=1.34.0"
)

// chartTool runs the go command in the module of helm and of the types of Kubernetes.
func chartTool(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "testdata/chart", strings.NewReader(stdin), &out, &out
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "HELM_CACHE_HOME="+t.TempDir())
	err := cmd.Run()
	return out.String(), err
}

func TestTheChartIsValid(t *testing.T) {
	t.Parallel()
	if out, err := chartTool(t, "", "mod", "download"); err != nil {
		t.Skipf("the modules of helm and Kubernetes are not here, and can't be had: %s", strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
	}
	for values, want := range map[string][]string{
		"all": {
			"autoscaling/v2 HorizontalPodAutoscaler", "apps/v1 Deployment", "batch/v1 Job", "monitoring.coreos.com/v1 PodMonitor",
			"networking.k8s.io/v1 Ingress", "networking.k8s.io/v1 NetworkPolicy", "policy/v1 PodDisruptionBudget", "v1 Service", "v1 Service", "v1 ServiceAccount",
		},
		"tls": {"apps/v1 Deployment", "v1 Service", "v1 Service"},
	} {
		t.Run(values, func(t *testing.T) {
			file := chart + "/ci/" + values + ".yaml"
			if out, err := chartTool(t, "", "tool", "helm", "lint", "--strict", cluster, chart, "--values", file); err != nil {
				t.Errorf("helm lint: %v\n%s", err, out)
			}
			manifests, err := chartTool(t, "", "tool", "helm", "template", "send", chart, cluster, "--namespace", "mail", "--values", file)
			if err != nil {
				t.Fatalf("helm template: %v\n%s", err, manifests)
			}
			names, err := chartTool(t, manifests, "run", ".")
			if err != nil {
				t.Errorf("Kubernetes does not take the manifests: %v\n%s\n%s", err, names, manifests)
			}
			var got []string
			for line := range strings.Lines(names) {
				words := strings.Fields(line)
				got = append(got, strings.Join(words[:2], " "))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("objects = %q, want %q", got, want)
			}
			checkPod(t, manifests)
		})
	}

	for what, args := range map[string][]string{
		"image.repository":       {},
		"replica":                {"--set", "replica=3"},
		"drainSeconds":           {"--set", "drainSeconds=0"},
		"SENDGATE_LISTEN":        {"--set", "settings.SENDGATE_LISTEN=:1"},
		"SENDGATE_DATABASE_URL_": {"--set", "secret.files.SENDGATE_DATABASE_URL_FILE=null"},
	} {
		if len(args) > 0 {
			args = append(args, "--set", "image.repository=r/sendgate")
		}
		out, err := chartTool(t, "", append([]string{"tool", "helm", "template", "send", chart, cluster}, args...)...)
		if err == nil || !strings.Contains(out, what) {
			t.Errorf("helm template %q: %v, want an error about %s\n%s", args, err, what, out)
		}
	}
	version := regexp.MustCompile(`(?m)^const release = "(.+)"$`).FindStringSubmatch(text(t, "internal/cli/version.go"))
	if version == nil || !strings.Contains(text(t, "deploy/helm/sendgate/Chart.yaml"), "\nappVersion: "+version[1]+"\n") {
		t.Errorf("the chart is not for the release %q", version)
	}
}

type mount struct {
	Path string `yaml:"mountPath"`
}

// checkPod lets the program read the settings of the Deployment, with files where the Secret is mounted.
func checkPod(t *testing.T, manifests string) {
	t.Helper()
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		var d struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						Grace      int `yaml:"terminationGracePeriodSeconds"`
						Containers []struct {
							Args            []string
							Env             []struct{ Name, Value string }
							SecurityContext struct {
								ReadOnly   bool  `yaml:"readOnlyRootFilesystem"`
								Escalation *bool `yaml:"allowPrivilegeEscalation"`
							} `yaml:"securityContext"`
							VolumeMounts []mount `yaml:"volumeMounts"`
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
			t.Fatal(err)
		}
		if d.Kind != "Deployment" && d.Kind != "Job" {
			continue
		}
		c := d.Spec.Template.Spec.Containers[0]
		if !c.SecurityContext.ReadOnly || c.SecurityContext.Escalation == nil || *c.SecurityContext.Escalation {
			t.Errorf("the container of the %s is not hardened: %+v", d.Kind, c.SecurityContext)
		}
		var environ []string
		for _, e := range c.Env {
			if strings.HasSuffix(e.Name, "_FILE") {
				if !slices.Contains(c.VolumeMounts, mount{filepath.Dir(e.Value)}) {
					t.Errorf("%s of the %s: nothing is mounted at %s", e.Name, d.Kind, e.Value)
				}
				e.Value = filepath.Join(t.TempDir(), "secret")
				if err := os.WriteFile(e.Value, []byte(podSecrets[e.Name]), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			environ = append(environ, e.Name+"="+e.Value)
		}
		if d.Kind == "Job" {
			if dsn, err := config.Secret(environ, "SENDGATE_DATABASE_URL"); err != nil || dsn == "" {
				t.Errorf("the Job has no database: %v", err)
			}
			continue
		}
		conf, err := config.Load(environ)
		if err != nil {
			t.Errorf("serve does not start with the settings of the Deployment: %v", err)
		}
		if grace := time.Duration(d.Spec.Template.Spec.Grace) * time.Second; grace < conf.DrainTimeout+10*time.Second {
			t.Errorf("the pod is killed after %s, and a process takes up to %s", grace, conf.DrainTimeout+5*time.Second)
		}
	}
}

var podSecrets = map[string]string{
	"SENDGATE_DATABASE_URL_FILE": "postgres://sendgate_serve:p@db/sendgate", "SENDGATE_SECRET_KEY_FILE": strings.Repeat("5e", 32),
	"SENDGATE_ADMIN_KEY_FILE": "sg_0123abcd_x", "SENDGRID_API_KEY_FILE": "SG.x",
}
