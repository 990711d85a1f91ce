# Burnish on a CPU. Models, caches and profiles lie in /cache; the folder of your files is /work.
FROM python:3.12-slim
ENV BURNISH_CACHE=/cache/burnish BURNISH_DATA=/cache/profiles HF_HOME=/cache/huggingface PIP_NO_CACHE_DIR=1
# Of torch's CPU builds, which are much smaller: docker build --build-arg TORCH_INDEX=<address from pytorch.org> .
ARG TORCH_INDEX=
COPY constraints.txt pyproject.toml README.md LICENSE /src/
RUN pip install -c /src/constraints.txt torch ${TORCH_INDEX:+--extra-index-url $TORCH_INDEX}
COPY src /src/src
RUN pip install -c /src/constraints.txt '/src[serve,report]' \
  && useradd --create-home user && mkdir -p /cache /work && chown user /cache /work
USER user
WORKDIR /work
VOLUME /cache
EXPOSE 8711
ENTRYPOINT ["burnish"]
CMD ["--help"]
