//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	driverName    = "csi.ai-storage.test"
	driverVersion = "1.0.0"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: csidriver controller|node [flags]")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	directory := flags.String("directory", "", "directory of the volumes, the same for all parts of a cluster")
	switch args[0] {
	case "controller":
		socket := flags.String("socket", "", "path of the socket to serve")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return runController(ctx, store{directory: *directory}, *socket)
	case "node":
		name := flags.String("name", "", "name of the node")
		root := flags.String("kubelet-root", "/var/lib/kubelet", "root directory of the kubelet")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return runNode(ctx, store{directory: *directory}, *name, *root)
	}
	return fmt.Errorf("unknown part %q: there are controller and node", args[0])
}

func runController(ctx context.Context, volumes store, socket string) error {
	server := newServer()
	csi.RegisterIdentityServer(server, identity{})
	csi.RegisterControllerServer(server, &controller{volumes: volumes})
	return serve(ctx, map[string]*grpc.Server{socket: server})
}

func runNode(ctx context.Context, volumes store, name, kubeletRoot string) error {
	endpoint := filepath.Join(kubeletRoot, "plugins", driverName, "csi.sock")
	server := newServer()
	csi.RegisterIdentityServer(server, identity{})
	csi.RegisterNodeServer(server, &node{name: name, volumes: volumes})
	// The kubelet finds a driver by a socket in this directory.
	registrar := grpc.NewServer()
	registration.RegisterRegistrationServer(registrar, registrationOf(endpoint))
	return serve(ctx, map[string]*grpc.Server{
		endpoint: server,
		filepath.Join(kubeletRoot, "plugins_registry", driverName+"-reg.sock"): registrar,
	})
}

func newServer() *grpc.Server {
	return grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		answer, err := handle(ctx, request)
		if err != nil {
			klog.ErrorS(err, "Call failed", "method", info.FullMethod, "request", request)
		} else {
			klog.V(2).InfoS("Call", "method", info.FullMethod, "request", request)
		}
		return answer, err
	}))
}
