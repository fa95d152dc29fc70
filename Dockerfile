# One file for every image: docker build --build-arg PROGRAM=scheduler .
# `make images` makes images of the same programs without Docker.
ARG GO_VERSION=1.26
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
ARG PROGRAM
ARG TARGETOS
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY pkg pkg
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -ldflags '-s -w' -o /out/program ./cmd/${PROGRAM:?name it with --build-arg PROGRAM=}
# The node agent installs the wrapper of runc on its node.
RUN if [ "$PROGRAM" = node-agent ]; then CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -ldflags '-s -w' -o /out/oci-runtime ./cmd/oci-runtime; fi

FROM gcr.io/distroless/static:nonroot
# The node agent is the only one that has to be root: --build-arg USER=0:0
ARG USER=65532:65532
COPY --from=build /out/ /
USER ${USER}
ENTRYPOINT ["/program"]
