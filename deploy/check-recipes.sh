#!/usr/bin/env bash
# Checks the recipes by the tools of those who define them: the Compose files by compose-go, Docker's
# own reader (schema, variables, networks and volumes that exist), the Kubernetes manifest by
# kubectl-validate, the API server's own checks, with the Flink operator's definition of a
# FlinkDeployment from Maven Central. What a cluster does with them is not checked here.
#   deploy/check-recipes.sh       needs Go and the network the first time; the tools stay in $CACHE
set -euo pipefail
cd "$(dirname "$0")"
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/beam-flowers-container}
OPERATOR=1.10.0 # The newest whose jar holds the definitions.
KUBERNETES=1.30
export GOBIN=$CACHE/bin
mkdir -p "$GOBIN" "$CACHE/crds"

build_compose_check() { # compose-go's own command drops the environment and checks no references
  mkdir -p "$CACHE/compose-check"
  cat >"$CACHE/compose-check/main.go" <<'GO'
package main

import (
	"context"
	"log"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithProfiles([]string{"*"}))
	if err == nil {
		_, err = options.LoadProject(context.Background())
	}
	if err != nil {
		log.Fatal(err)
	}
}
GO
  (
    cd "$CACHE/compose-check"
    [ -e go.mod ] || go mod init compose-check
    go get github.com/compose-spec/compose-go/v2/cli@v2.16.2
    go build -o "$GOBIN/compose-check" .
  )
}
[ -x "$GOBIN/compose-check" ] || build_compose_check
[ -x "$GOBIN/kubectl-validate" ] || go install sigs.k8s.io/kubectl-validate@v0.0.4
crd=$CACHE/crds/flinkdeployments-$OPERATOR.yml
[ -s "$crd" ] || {
  jar=$(mktemp)
  name=flink-kubernetes-operator-api
  curl --fail --silent --show-error --location --output "$jar" \
    "https://repo1.maven.org/maven2/org/apache/flink/$name/$OPERATOR/$name-$OPERATOR.jar"
  python3 - "$jar" "$crd" <<'PYTHON'
import sys, zipfile
jar, target = sys.argv[1:]
text = zipfile.ZipFile(jar).read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml")
open(target, "wb").write(text)
PYTHON
  rm "$jar"
}

for recipe in flink/compose.yaml spark/compose.yaml; do
  PHOTOS=/photos "$GOBIN/compose-check" "$recipe"
  echo "$recipe: OK"
done
"$GOBIN/kubectl-validate" --version "$KUBERNETES" --local-crds "$CACHE/crds" kubernetes/flink.yaml
