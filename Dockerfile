# glasshouse on a CPU, without the network: docker build -t glasshouse . && docker run --rm --network none glasshouse
# Your own model: docker run --rm --network none -v "$PWD":/work:ro -v "$PWD/runs":/runs glasshouse \
#                   audit checkpoint --base base --runs /runs
FROM python:3.11-slim AS build
WORKDIR /build
# What the wheel is built from, and nothing else.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/glasshouse \
    && /opt/glasshouse/bin/pip install --no-cache-dir --constraint constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu .

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home auditor \
    && install --directory --owner auditor /work /runs
COPY --from=build /opt/glasshouse /opt/glasshouse
ENV PATH=/opt/glasshouse/bin:$PATH \
    HF_HUB_OFFLINE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    TOKENIZERS_PARALLELISM=false
USER auditor
WORKDIR /work
ENTRYPOINT ["glasshouse"]
# This organism has a backdoor, so the verdict is `concern` and the exit status 1.
CMD ["audit", "organism:hijack-logo", "--runs", "/runs"]
