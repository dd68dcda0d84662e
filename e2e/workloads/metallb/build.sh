#!/bin/sh
# Builds MetalLB's controller and speaker into target/lab/metallb, and puts its definitions, examples and pages beside them.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
lab=${LAB_DIRECTORY:-$here/../../../target/lab}
mkdir -p "$lab/metallb"
lab=$(cd "$lab" && pwd)/metallb
export CGO_ENABLED=0

cd "$here"
go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$lab/controller" go.universe.tf/metallb/controller
go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$lab/speaker" go.universe.tf/metallb/speaker
source=$(go list -m -f '{{.Dir}}' go.universe.tf/metallb)
rm -rf "$lab/definitions" "$lab/examples" "$lab/pages"
cp -r "$source/config/crd/bases" "$lab/definitions"
cp -r "$source/configsamples" "$lab/examples"
cp -r "$source/website/content" "$lab/pages"
chmod -R u+w "$lab/definitions" "$lab/examples" "$lab/pages"
