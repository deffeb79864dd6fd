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

# PyPI's `tensorflow` carries CUDA kernels that a CPU never calls. `tensorflow-cpu` is the same
# module without them, a third smaller; the empty distribution beside it answers whoever asks for
# `tensorflow` by name. `--build-arg TENSORFLOW=tensorflow` takes the big one.
ARG TENSORFLOW=tensorflow-cpu
# `aws` is for s3://. Others for the asking: --build-arg EXTRAS=aws,gcp,azure,hdfs
ARG EXTRAS=aws
# CONSTRAINTS=/dev/null takes the newest of everything, to renew the file.
ARG CONSTRAINTS=deploy/constraints.txt
ARG BEAM_VERSION
COPY deploy/constraints.txt deploy/
COPY pyproject.toml setup.py README.md LICENSE ./
# All that we depend on, before our own code: a layer that most builds find ready. At its end goes
# what only compilers read. Bytecode stays: workers cannot write it, and each would compile
# TensorFlow at its start.
RUN pip install -c "$CONSTRAINTS" "$TENSORFLOW" \
 && if [ "$TENSORFLOW" != tensorflow ]; then \
      version=$(pip show "$TENSORFLOW" | sed -n 's/^Version: //p') \
   && mkdir alias \
   && printf '[project]\nname = "tensorflow"\nversion = "%s"\ndependencies = ["%s==%s"]\n[tool.setuptools]\npy-modules = []\n' \
        "$version" "$TENSORFLOW" "$version" > alias/pyproject.toml \
   && pip install ./alias; \
    fi \
 && mkdir beam_flowers \
 && pip install -c "$CONSTRAINTS" "apache-beam==$BEAM_VERSION" ".[$EXTRAS]" \
 && cd /opt/venv/lib/python3.11/site-packages \
 && rm -rf tensorflow/include pyarrow/include clang/native

COPY beam_flowers beam_flowers
RUN pip install --no-deps --force-reinstall . && pip check


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
