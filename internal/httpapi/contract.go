package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/sendgate/sendgate/api"
)

// contractYAML answers with the contract as it was when the program was built.
func contractYAML(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, "application/yaml", api.OpenAPI())
	return nil
}

// contractJSON answers with the contract as JSON.
func contractJSON(w http.ResponseWriter, _ *http.Request) error {
	body, err := contractAsJSON()
	if err != nil {
		return err
	}
	write(w, http.StatusOK, "application/json", body)
	return nil
}

var contractAsJSON = sync.OnceValues(func() ([]byte, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(api.OpenAPI(), &doc); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(doc)
	return b.Bytes(), err
})
