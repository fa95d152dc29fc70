package restapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/user"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// Limits of a connection. Bodies are at most maxBody.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	// handlerTimeout bounds what a handler asks of the API server, writeTimeout
	// also the answer. Streams have deadlines of their own.
	handlerTimeout = 20 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeader      = 64 << 10
	// drainTimeout is how long requests in flight may take to end when the process
	// does. It is shorter than the grace period of the manager, which is 30 s.
	drainTimeout = 25 * time.Second
)

// Authorizer says who calls and what they may do.
type Authorizer interface {
	// Identify returns the user that the bearer token of a request belongs to. Errors
	// are auth.ErrNoToken and auth.ErrInvalidToken; others mean that the API server
	// does not answer.
	Identify(*http.Request) (user.Info, error)
	// Allow returns nil when the user has the right, an error that wraps
	// auth.ErrForbidden when not; others mean that the API server does not answer.
	Allow(context.Context, user.Info, auth.Access) error
}

// Preflight judges requests as the migration controller does.
type Preflight interface {
	// Check says what would become of a request now. Nothing is written.
	Check(context.Context, *v1alpha1.PodMigration) (migration.PreflightResult, error)
}

// Options of the server. All are required but for Page, Rate and Burst.
type Options struct {
	// Address to listen on, host:port.
	Address string
	// Certificate is asked at every TLS handshake.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Authorizer  Authorizer
	Preflight   Preflight
	// Cached reads PodMigrations from a cache that has IndexByID, Live past it.
	Cached client.Reader
	Live   client.Reader
	Writer client.Writer
	// StatusStore shows the status of the loop.
	StatusStore *rebalance.StatusStore
	Nodes       corelisters.NodeLister
	Pods        corelisters.PodLister
	// Metrics measures nodes.
	Metrics metricsclient.NodeMetricsesGetter
	// Synced reports whether all caches have seen the cluster.
	Synced func() bool
	// Page is served at / and below /assets/; nil where there is none.
	Page http.Handler
	// Rate and Burst limit every caller, in requests a second and at once; a Rate
	// of 0 does not limit.
	Rate       float64
	Burst      int
	Registerer prometheus.Registerer
}

// Server answers on every replica, leader or not.
type Server struct {
	o           Options
	limiter     *auth.RateLimiter
	metrics     *Metrics
	broadcaster *broadcaster
	usage       usageCache
	handler     http.Handler
	// lookups bounds the listings for ids that the cache does not have.
	lookups chan struct{}
	// inFlight bounds the requests that are worked on.
	inFlight chan struct{}
	// ending is closed when the server ends, before it waits for its requests.
	ending chan struct{}
	now    func() time.Time
}

// New makes a server that Start runs. Changes of migrations come by Watch.
func New(o Options) (*Server, error) {
	s := &Server{
		o: o, limiter: auth.NewRateLimiter(o.Rate, o.Burst, time.Now), metrics: NewMetrics(o.Registerer),
		lookups: make(chan struct{}, maxLookups), inFlight: make(chan struct{}, maxInFlight), ending: make(chan struct{}), now: time.Now,
	}
	s.broadcaster = newBroadcaster(s.metrics)
	var err error
	s.handler, err = s.routes()
	return s, err
}

// Watch publishes every change that an informer of PodMigrations sees to the
// subscribers of the server.
func (s *Server) Watch(informer interface {
	AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error)
}) error {
	_, err := informer.AddEventHandler(s.broadcaster)
	return err
}

// Handler is the API without the server around it, for tests.
func (s *Server) Handler() http.Handler { return s.handler }

// NeedLeaderElection lets every replica serve.
func (s *Server) NeedLeaderElection() bool { return false }

// Start serves until the context ends. Then it takes no new requests, ends the
// streams, and waits until what it has begun is answered.
func (s *Server) Start(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithName("restapi")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.o.Address)
	if err != nil {
		return fmt.Errorf("listening for the HTTP API: %w", err)
	}
	server := &http.Server{
		Handler:           s.handler,
		TLSConfig:         &tls.Config{GetCertificate: s.o.Certificate, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// A request that has come is answered, also while the process ends.
		BaseContext: func(net.Listener) context.Context { return klog.NewContext(context.WithoutCancel(ctx), logger) },
		ErrorLog:    log.New(connectionLog{logger}, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	logger.Info("Serving the HTTP API", "address", listener.Addr().String())
	watching, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { s.watchLoop(watching) })
	defer background.Wait()
	defer stop()
	select {
	case err := <-served:
		return fmt.Errorf("serving the HTTP API: %w", err)
	case <-ctx.Done():
	}
	close(s.ending)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return fmt.Errorf("ending the HTTP API: %w", errors.Join(err, server.Close()))
	}
	return nil
}

// connectionLog takes what net/http has to say about connections, such as failed
// handshakes: of interest only to who looks for them.
type connectionLog struct{ logger klog.Logger }

func (l connectionLog) Write(line []byte) (int, error) {
	l.logger.V(2).Info("Connection failed", "message", string(line))
	return len(line), nil
}
