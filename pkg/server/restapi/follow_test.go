package restapi

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// The integration tests do the same with every request they make; these need no
// cluster.
func TestAnswersFollowTheDocument(t *testing.T) {
	s := newServer(t, interceptor.Funcs{}, nil)
	router, err := legacy.NewRouter(loadDocument(t))
	if err != nil {
		t.Fatal(err)
	}
	const id = "/api/v1/migrations/00000000-0000-4000-8000-000000000001"
	for _, test := range []struct {
		method, path, body string
		code               int
		wrong              bool
	}{
		{"POST", "/api/v1/migrations", goodBody, 202, false},
		{"POST", "/api/v1/migrations", strings.Replace(goodBody, "}", `,"timeout":null,"preserve_pv":true}`, 1), 202, false},
		{"POST", "/api/v1/migrations", `{"pod_name":"train"}`, 400, true},
		{"POST", "/api/v1/migrations", strings.Replace(goodBody, "}", `,"timeout":-1}`, 1), 400, true},
		{"POST", "/api/v1/migrations", strings.Replace(goodBody, "}", `,"other":1}`, 1), 400, true},
		{"GET", "/api/v1/migrations?phase=Pending&phase=Failed&limit=1&pod=train", "", 200, false},
		{"GET", "/api/v1/migrations?limit=0", "", 400, true},
		{"GET", "/api/v1/migrations?phase=Done", "", 400, true},
		{"GET", id, "", 200, false},
		{"DELETE", id, "", 202, false},
		{"GET", strings.ReplaceAll(id, "1", "9"), "", 404, true},
		{"GET", "/api/v1/plan", "", 200, false},
		{"GET", "/api/v1/nodes", "", 200, false},
		{"GET", "/api/v1/metrics?namespace=ns", "", 200, false},
		{"GET", "/health", "", 200, false},
		{"GET", "/readyz", "", 200, false},
		{"GET", "/openapi.json", "", 200, false},
	} {
		name := test.method + " " + test.path + " " + test.body
		request := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
		request.URL.Host, request.Host = "", ""
		request.Header.Set("Content-Type", "application/json")
		route, params, err := router.FindRoute(request)
		if err != nil {
			if !test.wrong {
				t.Errorf("%s is not in the document: %v", name, err)
			}
			continue
		}
		input := &openapi3filter.RequestValidationInput{Request: request, PathParams: params, Route: route,
			Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
		if err := openapi3filter.ValidateRequest(context.Background(), input); (err != nil) != test.wrong && test.code != 404 {
			t.Errorf("%s: the document says %v", name, err)
		}
		answer := s.send(test.method, test.path, test.body)
		if answer.Code != test.code {
			t.Errorf("%s is answered with %d %s, want %d", name, answer.Code, answer.Body, test.code)
		}
		validated := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: answer.Code, Header: answer.Header(),
			Body: io.NopCloser(answer.Body), Options: &openapi3filter.Options{IncludeResponseStatus: true}}
		if err := openapi3filter.ValidateResponse(context.Background(), validated); err != nil {
			t.Errorf("%s: the answer %d does not follow the document: %v", name, answer.Code, err)
		}
	}
}
