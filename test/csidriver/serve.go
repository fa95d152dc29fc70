//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// serve serves each server on its socket until ctx ends or one of them fails.
func serve(ctx context.Context, servers map[string]*grpc.Server) error {
	failures := make(chan error, len(servers))
	for socket, server := range servers {
		listener, err := listen(socket)
		if err != nil {
			return err
		}
		go func() { failures <- server.Serve(listener) }()
		defer server.Stop()
	}
	select {
	case err := <-failures:
		return err
	case <-ctx.Done():
		return nil
	}
}

// listen takes the socket over from a predecessor that was killed.
func listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return listener, nil
}

// registrationOf answers the kubelet's questions about a driver that serves at
// the endpoint.
func registrationOf(endpoint string) registration.RegistrationServer {
	return registrar{endpoint: endpoint}
}

type registrar struct {
	registration.UnimplementedRegistrationServer
	endpoint string
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driverName, Endpoint: r.endpoint, SupportedVersions: []string{driverVersion},
	}, nil
}

// NotifyRegistrationStatus hears what the kubelet thinks. A refusal ends the
// program, so that the pod's status reports it.
func (r registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		fmt.Fprintf(os.Stderr, "the kubelet refused the driver: %s\n", status.Error)
		os.Exit(1)
	}
	return &registration.RegistrationStatusResponse{}, nil
}
