package restapi

import (
	_ "embed"
	"net/http"
	"sync"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"
)

// Document is the contract of the API, OpenAPI 3 in YAML.
//
//go:embed openapi.yaml
var Document []byte

var documentJSON = sync.OnceValues(func() ([]byte, error) { return yaml.YAMLToJSON(Document) })

func checkDocument() error {
	_, err := documentJSON()
	return err
}

// document serves the contract as JSON.
func (s *Server) document(w http.ResponseWriter, r *http.Request, _ user.Info) error {
	content, err := documentJSON()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	if _, err := w.Write(content); err != nil {
		klog.FromContext(r.Context()).V(2).Info("Answer was not read to its end", "err", err)
	}
	return nil
}
