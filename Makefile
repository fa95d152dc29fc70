# AI Storage Orchestrator: `make help` lists what there is.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# An interrupted build must not leave a half-written binary that looks new.
.DELETE_ON_ERROR:

KUBERNETES_VERSION := v1.35.4
BIN := bin

GO ?= go
GO_STATIC := CGO_ENABLED=0 $(GO) build -trimpath
SMALL := -ldflags '-s -w'
# component-base's version is Kubernetes': the scheduler takes it for the
# version of its API, so ours must never be written there.
KUBE_VERSION_PKG := k8s.io/component-base/version
KUBE_LDFLAGS := -s -w -X $(KUBE_VERSION_PKG).gitVersion=$(KUBERNETES_VERSION) \
	-X $(KUBE_VERSION_PKG).gitMajor=1 -X $(KUBE_VERSION_PKG).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES_VERSION)))

PRODUCT := scheduler rebalancer devcluster
KUBE_PROGRAMS := kube-apiserver kube-controller-manager kubelet kubectl
CODE_GENERATORS := deepcopy-gen defaulter-gen conversion-gen
NODE_PROGRAMS := containerd containerd-shim-runc-v2 ctr

TOOL_BINS := $(addprefix $(BIN)/,$(KUBE_PROGRAMS) $(NODE_PROGRAMS) etcd kwok metrics-server runc)
GENERATOR_BINS := $(addprefix $(BIN)/,$(CODE_GENERATORS) controller-gen)
GO_FILES = $(shell find cmd pkg manifests -name '*.go' -o -name '*.yaml' 2>/dev/null)

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z0-9-]*:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: $(addprefix $(BIN)/,$(PRODUCT)) ## Build our programs into bin/

$(addprefix $(BIN)/,$(PRODUCT)): $(BIN)/%: go.mod go.sum $(GO_FILES)
	$(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ ./cmd/$*

.PHONY: tools
tools: $(TOOL_BINS) ## Build Kubernetes, etcd, containerd and the rest of the local cluster

$(addprefix $(BIN)/,$(KUBE_PROGRAMS)): $(BIN)/%: test/tools/kubernetes/go.mod test/tools/kubernetes/go.sum
	cd test/tools/kubernetes && $(GO_STATIC) -ldflags '$(KUBE_LDFLAGS)' -o $(CURDIR)/$@ k8s.io/kubernetes/cmd/$*

$(addprefix $(BIN)/,$(CODE_GENERATORS)): $(BIN)/%: test/tools/kubernetes/go.mod
	cd test/tools/kubernetes && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ k8s.io/code-generator/cmd/$*

$(BIN)/controller-gen: test/tools/kubernetes/go.mod
	cd test/tools/kubernetes && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ sigs.k8s.io/controller-tools/cmd/controller-gen

TOOLS_MODULE := test/tools/go.mod test/tools/go.sum

$(BIN)/etcd: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ go.etcd.io/etcd/server/v3

$(BIN)/kwok: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ sigs.k8s.io/kwok/cmd/kwok

$(BIN)/metrics-server: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ sigs.k8s.io/metrics-server/cmd/metrics-server

$(addprefix $(BIN)/,$(NODE_PROGRAMS)): $(BIN)/%: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ github.com/containerd/containerd/v2/cmd/$*

# runc joins namespaces in C and filters system calls through libseccomp.
$(BIN)/runc: $(TOOLS_MODULE)
	cd test/tools && CGO_ENABLED=1 $(GO) build -trimpath -tags seccomp $(SMALL) -o $(CURDIR)/$@ github.com/opencontainers/runc

$(BIN)/staticcheck: $(TOOLS_MODULE)
	cd test/tools && $(GO_STATIC) $(SMALL) -o $(CURDIR)/$@ honnef.co/go/tools/cmd/staticcheck

##@ Develop

.PHONY: generate
generate: $(GENERATOR_BINS) ## Write generated code and the CRD anew
	$(BIN)/deepcopy-gen --output-file zz_generated.deepcopy.go ./pkg/apis/config ./pkg/apis/config/v1
	$(BIN)/defaulter-gen --output-file zz_generated.defaults.go ./pkg/apis/config/v1
	$(BIN)/conversion-gen --output-file zz_generated.conversion.go ./pkg/apis/config/v1
	$(BIN)/controller-gen object paths=./pkg/apis/migration/...
	$(BIN)/controller-gen crd paths=./pkg/apis/migration/... output:crd:dir=manifests/crd
