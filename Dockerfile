# syntax=docker/dockerfile:1

# The git folder is copied on purpose: the go command writes the commit into the binary, for `sendgate version`.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/sendgate ./cmd/sendgate
# /etc/passwd lets tools show a name for the user; the user itself is given by number below.
RUN mkdir -p /out/etc /out/tmp && chmod 1777 /out/tmp \
    && echo 'sendgate:x:65532:65532:sendgate:/:/sbin/nologin' > /out/etc/passwd \
    && echo 'sendgate:x:65532:' > /out/etc/group

# No shell and no package manager: only the program and the CA certificates for TLS.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /
USER 65532:65532
EXPOSE 8025 8026 8029
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["/sendgate", "doctor", "--ready"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/sendgate"]
CMD ["serve"]
