# One image for two jobs: the application (`docker run IMAGE embed ...`) and Beam's Python worker
# (`docker run IMAGE --worker_pool`). docs/deploy.md shows both, deploy/container-test.sh proves them.
#
# A tag means another image every few weeks. For a build that can be repeated, look up today's
# digests and give them, with their @; without, the tags are taken as they stand:
#   docker buildx imagetools inspect python:3.11-slim --format '{{.Manifest.Digest}}'
#   docker build -t beam-flowers --build-arg PYTHON_DIGEST=@sha256:... --build-arg BEAM_DIGEST=@sha256:... .
ARG BEAM_VERSION=2.77.0
ARG BEAM_DIGEST=
ARG PYTHON_DIGEST=

FROM docker.io/apache/beam_python3.11_sdk:${BEAM_VERSION}${BEAM_DIGEST} AS beam


FROM docker.io/library/python:3.11-slim${PYTHON_DIGEST} AS build
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python3 -m venv /opt/venv

# All that we depend on, by the digests of its files and without looking for more: who takes over a
# package or a mirror gets nothing in. `deploy/lock.sh` writes the lists, also those for other extras
# than `aws`, which is for s3://; --build-arg REQUIREMENTS=deploy/requirements-... takes another.
ARG REQUIREMENTS=
ARG BEAM_VERSION
COPY deploy/requirements-*.txt deploy/
# Before our own code: a layer that most builds find ready. At its end goes what only compilers read.
# Bytecode stays: workers cannot write it, and each would compile TensorFlow at its start.
# `tensorflow-cpu` is `tensorflow` without CUDA kernels, a third smaller: the empty distribution
# answers whoever asks for `tensorflow` by name.
RUN pip install --require-hashes --no-deps --only-binary :all: \
      -r "${REQUIREMENTS:-deploy/requirements-$(uname -m).txt}" \
 && test "$(pip show apache-beam | sed -n 's/^Version: //p')" = "$BEAM_VERSION" \
 && version=$(pip list --format freeze | sed -n 's/^tensorflow[-_]cpu==//p') \
 && if [ -n "$version" ]; then \
      mkdir alias \
   && printf '[project]\nname = "tensorflow"\nversion = "%s"\ndependencies = ["tensorflow-cpu==%s"]\n[tool.setuptools]\npy-modules = []\n' \
        "$version" "$version" > alias/pyproject.toml \
   && pip install --no-deps --no-build-isolation ./alias; \
    fi \
 && cd /opt/venv/lib/python3.11/site-packages \
 && rm -rf tensorflow/include pyarrow/include clang/native

COPY pyproject.toml setup.py README.md LICENSE ./
COPY beam_flowers beam_flowers
RUN pip install --no-deps --no-build-isolation . && pip check


FROM docker.io/library/python:3.11-slim${PYTHON_DIGEST}
LABEL org.opencontainers.image.title="beam-flowers" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=beam /opt/apache/beam/boot /opt/apache/beam/boot
COPY --from=build /opt/venv /opt/venv
COPY deploy/entrypoint.sh /usr/local/bin/entrypoint
# Without the last one, Beam's boot program makes a virtual environment over the system's Python and
# does not find our packages in it.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
RUN useradd --uid 1000 --user-group --create-home beam && mkdir --mode 1777 /work
WORKDIR /work
# By number, so that Kubernetes' runAsNonRoot can tell.
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["--help"]
