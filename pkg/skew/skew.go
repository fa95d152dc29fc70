package skew

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/klog/v2"
)

// devices is what the libraries watch since devicesSince, and cannot be configured not to
// watch since 1.35, where the feature is locked.
const devices = "resource.k8s.io/v1"

var (
	devicesSince = version.MajorMinor(1, 34)
	// Oldest is the oldest API server that is tested.
	Oldest = version.MajorMinor(1, 33)
)

// askPeriod is how soon an API server that does not answer is asked again.
const askPeriod = 2 * time.Second

// Emulation is the version of Kubernetes as which to behave.
type Emulation struct {
	// Version is a major and a minor number, at most those of the libraries.
	Version *version.Version
	// Server is the API server's version.
	Server *version.Version
	// Reason is human-readable; empty where Version is that of the libraries.
	Reason string
}

// For decides as which version to behave, given the version of the libraries, of
// the API server, and whether it serves the devices' API, which can be turned off. The
// error says that the API server is older than Oldest.
func For(libraries, server *version.Version, servesDevices bool) (Emulation, error) {
	libraries, minor := majorMinor(libraries), majorMinor(server)
	e := Emulation{Version: libraries, Server: server}
	if minor.LessThan(Oldest) {
		return e, fmt.Errorf("the API server is %s: %s or newer is needed", server, Oldest)
	}
	if minor.LessThan(libraries) {
		e.Version, e.Reason = minor, "the API server is older than our libraries"
	}
	if !servesDevices && !e.Version.LessThan(devicesSince) {
		e.Version, e.Reason = devicesSince.SubtractMinor(1), "the API server does not serve "+devices
	}
	return e, nil
}

func majorMinor(v *version.Version) *version.Version { return version.MajorMinor(v.Major(), v.Minor()) }

// Ask asks the API server until it answers, and decides. Only the first failure is
// logged: what cannot be reached now may be in a moment. The error is that of ctx, or
// that the API server is older than Oldest.
func Ask(ctx context.Context, api discovery.DiscoveryInterface, libraries *version.Version) (Emulation, error) {
	var e Emulation
	said := false
	err := wait.PollUntilContextCancel(ctx, askPeriod, true, func(ctx context.Context) (bool, error) {
		server, served, err := look(api)
		if err != nil {
			if !said {
				klog.FromContext(ctx).Error(err, "Waiting for the API server to report its version")
				said = true
			}
			return false, nil
		}
		e, err = For(libraries, server, served)
		return true, err
	})
	if err != nil {
		return e, fmt.Errorf("fitting to the API server: %w", err)
	}
	logger := klog.FromContext(ctx)
	switch {
	case e.Reason != "":
		logger.Info("Behaving as an older Kubernetes: features that came later are off", "version", e.Version, "apiServer", e.Server, "reason", e.Reason)
	case majorMinor(e.Server).GreaterThan(e.Version):
		logger.Info("The API server is newer than our libraries: what came later is not used", "libraries", e.Version, "apiServer", e.Server)
	}
	return e, nil
}

// look reads the version and whether the devices' API is served.
func look(api discovery.DiscoveryInterface) (server *version.Version, devicesServed bool, err error) {
	info, err := api.ServerVersion()
	if err != nil {
		return nil, false, fmt.Errorf("asking for the version: %w", err)
	}
	if server, err = version.ParseSemantic(info.GitVersion); err != nil {
		return nil, false, fmt.Errorf("version of the API server: %w", err)
	}
	_, err = api.ServerResourcesForGroupVersion(devices)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, false, fmt.Errorf("asking for %s: %w", devices, err)
	}
	return server, err == nil, nil
}
