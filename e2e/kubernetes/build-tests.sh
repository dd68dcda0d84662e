#!/bin/sh
# Builds Kubernetes' own end-to-end tests, and Ginkgo, which runs several of them at a time, into target/lab of the
# repository, for `make conformance`. Quick when nothing changed; about four minutes on two cores the first time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
lab=${LAB_DIRECTORY:-$here/../../target/lab}
cd "$here"
mkdir -p "$lab"

# Some specs compare their own version with the server's.
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
versions="-X k8s.io/component-base/version.gitVersion=$version"
versions="$versions -X k8s.io/component-base/version.gitMajor=1"
versions="$versions -X k8s.io/component-base/version.gitMinor=${minor%%.*}"

# What the image agnhost has beside its program: a key for its TLS server, and a DNS server.
image=$(go list -f '{{.Dir}}' k8s.io/kubernetes/test/images/agnhost)
mkdir -p "$lab/agnhost.files"
cp -f "$image/porter/localhost.crt" "$image/porter/localhost.key" "$lab/agnhost.files/"
chmod u+w "$lab/agnhost.files/"*

export CGO_ENABLED=0
(cd ../workloads/coredns && go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$lab/coredns" .)
ln -f "$lab/coredns" "$lab/agnhost.files/coredns"
go test -c -vet=off -trimpath -buildvcs=false -ldflags "-s -w $versions" -o "$lab/e2e.test" k8s.io/kubernetes/test/e2e
# The image of a server that sends segments which the connection tracking takes for invalid.
go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$lab/regression-issue-74839" k8s.io/kubernetes/test/images/regression-issue-74839
go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$lab/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
