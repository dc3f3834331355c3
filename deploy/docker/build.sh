#!/usr/bin/env bash
# Builds the images of the cluster:
#   deploy/docker/build.sh 0.1.0                                     onto this machine
#   deploy/docker/build.sh 0.1.0 registry.example.com/touchline      and pushes them, with their SBOMs
#   WEIGHTS=demo deploy/docker/build.sh 0.1.0-demo                   those of the overlay `cpu`
set -euo pipefail
cd "$(dirname "$0")/../.."
tag=${1:?expected a tag, such as 0.1.0}
registry=${2:-touchline}
weights=${WEIGHTS:-none}
build=(docker build)
if [ $# -gt 1 ]; then build=(docker buildx build --push --sbom=true --provenance=true); fi

image() {  # NAME DOCKERFILE [OPTION...]
  "${build[@]}" --file "deploy/docker/$2.Dockerfile" --tag "$registry/$1:$tag" "${@:3}" .
}

image orchestrator orchestrator
for model in rfdetr_detector resnet_jersey sam2_tracker siglip_embedder siglip_text; do
  image "${model//_/-}" triton --build-arg "MODEL=$model" --build-arg "WEIGHTS=$weights"
done
if [ "$weights" = none ]; then image engine-builder engine; fi
