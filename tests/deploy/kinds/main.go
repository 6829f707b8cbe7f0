// Command kinds reads YAML documents from standard input, each after a line `# TYPE`, and fails where one has a field
// that this type does not have. The types are those of the projects that read such documents.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	gateway "github.com/envoyproxy/gateway/api/v1alpha1"
	contour "github.com/projectcontour/contour/apis/projectcontour/v1alpha1"
	contourfile "github.com/projectcontour/contour/pkg/config"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

var types = map[string]func() any{
	"EnvoyGateway":     func() any { return new(gateway.EnvoyGateway) },
	"ExtensionService": func() any { return new(contour.ExtensionService) },
	"PrometheusRule":   func() any { return new(monitoring.PrometheusRule) },
	"ServiceMonitor":   func() any { return new(monitoring.ServiceMonitor) },
}

func main() {
	data, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = check(string(data))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(documents string) error {
	for _, document := range strings.Split(documents, "\n---\n") {
		line, rest, _ := strings.Cut(document, "\n")
		name := strings.TrimPrefix(line, "# ")
		var err error
		if name == "contour.yaml" {
			_, err = contourfile.Parse(strings.NewReader(rest))
		} else if fresh, known := types[name]; known {
			err = yaml.UnmarshalStrict([]byte(rest), fresh())
		} else {
			err = fmt.Errorf("no such type")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
