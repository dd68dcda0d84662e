#!/bin/sh
# Builds what the lab's Pods run beyond agnhost, into target/lab of the repository: CoreDNS and Traefik.
# Quick when nothing changed; about ten minutes on two cores the first time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
lab=${LAB_DIRECTORY:-$here/../../target/lab}
mkdir -p "$lab"
lab=$(cd "$lab" && pwd)
export CGO_ENABLED=0

cd "$here/coredns"
go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$lab/coredns" .

cd "$here/traefik"
# Traefik is built with a lego that knows no DNS provider, in place of the client libraries of 200 of them.
lego=github.com/go-acme/lego/v5@$(sed -n 's#^[[:space:]]*github.com/go-acme/lego/v5 \(v[^ ]*\).*#\1#p' go.mod)
original=$(cd / && GOWORK=off go mod download -json "$lego" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
[ -n "$original" ] || { echo "$0: $lego cannot be had" >&2; exit 1; }
if [ "$(cat lego/.version 2>/dev/null)" != "$lego" ]; then
    rm -rf lego
    mkdir lego
    (cd "$original" && tar cf - --exclude=./providers/dns --exclude='*_test.go' .) | tar xf - -C lego
    chmod -R u+w lego
    mkdir -p lego/providers/dns
    echo "$lego" >lego/.version
fi
cmp -s lego_dns.go.txt lego/providers/dns/dns.go || cp lego_dns.go.txt lego/providers/dns/dns.go
go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$lab/traefik" github.com/traefik/traefik/v3/cmd/traefik
