// Command chart reads the manifests that helm rendered from standard input, and decodes each strictly into the type of the
// Kubernetes API that it claims to be: an unknown field, a wrong type or an unknown kind is an error, as for a server with strict
// validation of fields. It is a module of its own, because these types are no dependency of sendgate.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

var kinds = map[string]func() meta.Object{
	"apps/v1 Deployment":                     func() meta.Object { return &apps.Deployment{} },
	"batch/v1 Job":                           func() meta.Object { return &batch.Job{} },
	"v1 Service":                             func() meta.Object { return &core.Service{} },
	"v1 ServiceAccount":                      func() meta.Object { return &core.ServiceAccount{} },
	"policy/v1 PodDisruptionBudget":          func() meta.Object { return &policy.PodDisruptionBudget{} },
	"autoscaling/v2 HorizontalPodAutoscaler": func() meta.Object { return &autoscaling.HorizontalPodAutoscaler{} },
	"networking.k8s.io/v1 Ingress":           func() meta.Object { return &networking.Ingress{} },
	"networking.k8s.io/v1 NetworkPolicy":     func() meta.Object { return &networking.NetworkPolicy{} },
	"monitoring.coreos.com/v1 PodMonitor":    func() meta.Object { return &monitoring.PodMonitor{} },
}

func main() {
	if err := check(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(r io.Reader) error {
	var problems []error
	for docs := yamlutil.NewYAMLReader(bufio.NewReader(r)); ; {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return errors.Join(problems...)
		}
		if err != nil {
			return err
		}
		name, err := object(doc)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		case name != "":
			fmt.Println(name)
		}
	}
}

// object checks one document, and names it; "" for one that is empty.
func object(doc []byte) (string, error) {
	var head meta.TypeMeta
	if err := yaml.Unmarshal(doc, &head); err != nil || head == (meta.TypeMeta{}) {
		return "", err
	}
	name := head.APIVersion + " " + head.Kind
	empty, ok := kinds[name]
	if !ok {
		return name, errors.New("the table kinds does not know it")
	}
	o := empty()
	if err := yaml.UnmarshalStrict(doc, o); err != nil {
		return name, err
	}
	name += " " + o.GetName()
	for _, wrong := range validation.NameIsDNSSubdomain(o.GetName(), false) {
		return name, errors.New(wrong)
	}
	return name, nil
}
