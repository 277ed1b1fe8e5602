#!/bin/sh
# Generate the Go code of the Cap'n Proto schemas. Needs the Debian package
# capnproto; the Go plugin is the one of the library's pinned version.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/capnpc-go" capnproto.org/go/capnp/v3/capnpc-go
std=$(go list -m -f '{{.Dir}}' capnproto.org/go/capnp/v3)/std
for dir in muxcap p2pcap; do
	(cd "$dir" && PATH="$bin:$PATH" capnp compile -I"$std" -ogo ./*.capnp && gofmt -w ./*.capnp.go)
done
