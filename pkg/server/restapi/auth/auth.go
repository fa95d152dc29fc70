// Package auth says who calls the HTTP API and what they may do. Kubernetes
// decides both: bearer tokens are shown to the API server in a TokenReview, rights
// are asked of it in a SubjectAccessReview. Answers are kept for seconds.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/kubernetes"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Errors of Identify and Allow. Others mean that the API server does not answer.
var (
	// ErrNoToken: the request has no bearer token.
	ErrNoToken = errors.New("the request has no bearer token")
	// ErrInvalidToken: the API server does not know the token, or not any more.
	ErrInvalidToken = errors.New("the bearer token is not valid")
	// ErrForbidden: the caller is known and may not do this.
	ErrForbidden = errors.New("forbidden")
)

const (
	// reviewTimeout bounds one question to the API server.
	reviewTimeout = 10 * time.Second
	// cacheFor is how long an answer counts, also when a right was withdrawn.
	cacheFor = 10 * time.Second
	// cacheDenials is shorter: who was given a right does not want to wait.
	cacheDenials = 3 * time.Second
)

// Authorizer identifies callers and looks up their rights, both in the API server.
type Authorizer struct {
	authenticator authenticator.Request
	authorizer    authorizer.Authorizer
}

// NewAuthorizer asks through a client that may create TokenReviews and
// SubjectAccessReviews.
func NewAuthorizer(client kubernetes.Interface) (*Authorizer, error) {
	backoff := &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 3}
	tokens := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient: client.AuthenticationV1(), TokenAccessReviewTimeout: reviewTimeout,
		WebhookRetryBackoff: backoff, CacheTTL: cacheFor,
	}
	identify, _, err := tokens.New()
	if err != nil {
		return nil, fmt.Errorf("setting up authentication: %w", err)
	}
	rights := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client.AuthorizationV1(), AllowCacheTTL: cacheFor, DenyCacheTTL: cacheDenials, WebhookRetryBackoff: backoff,
	}
	allow, err := rights.New()
	if err != nil {
		return nil, fmt.Errorf("setting up authorization: %w", err)
	}
	return &Authorizer{authenticator: identify, authorizer: allow}, nil
}

// Identify says whom the bearer token of a request belongs to.
func (a *Authorizer) Identify(r *http.Request) (user.Info, error) {
	if r.Header.Get("Authorization") == "" {
		return nil, ErrNoToken
	}
	// The authenticator removes the header that it has used, and a stream is
	// asked about again later.
	asked := r.Clone(r.Context())
	response, ok, err := a.authenticator.AuthenticateRequest(asked)
	switch {
	case isOutage(err):
		return nil, fmt.Errorf("asking the API server whom the token belongs to: %w", err)
	case err != nil || !ok:
		return nil, ErrInvalidToken
	}
	return response.User, nil
}

// isOutage tells apart a token that was refused, which is an error too, from a
// review that did not take place.
func isOutage(err error) bool {
	if err == nil {
		return false
	}
	if several := utilerrors.Aggregate(nil); errors.As(err, &several) {
		for _, one := range several.Errors() {
			if isOutage(one) {
				return true
			}
		}
		return false
	}
	var status apierrors.APIStatus
	var connection interface{ Timeout() bool }
	return errors.As(err, &status) || errors.As(err, &connection) || errors.Is(err, context.Canceled)
}

// Access is a right on PodMigrations. An empty namespace means all of them, an
// empty name any.
type Access struct {
	Verb, Namespace, Name string
}

// Allow returns nil when the caller has the right, an error that wraps
// ErrForbidden when not.
func (a *Authorizer) Allow(ctx context.Context, caller user.Info, access Access) error {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	decision, _, err := a.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: caller, Verb: access.Verb, Namespace: access.Namespace, Name: access.Name,
		APIGroup: v1alpha1.GroupName, APIVersion: v1alpha1.SchemeGroupVersion.Version, Resource: "podmigrations", ResourceRequest: true,
	})
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		return fmt.Errorf("asking the API server for the rights of %s: %w", caller.GetName(), err)
	}
	where := "in namespace " + access.Namespace
	if access.Namespace == "" {
		where = "in all namespaces"
	}
	return fmt.Errorf("%w: user %q may not %s podmigrations.%s %s", ErrForbidden, caller.GetName(), access.Verb, v1alpha1.GroupName, where)
}
