# The static commands, without torch: docker build -t llmdoctor . && docker run --rm -v "$PWD:/work:ro" llmdoctor check .
# With torch and the real libraries: docker build --build-arg EXTRAS=live,labels,tables -t llmdoctor:live .
FROM python:3.12-slim
ARG EXTRAS=labels,tables
COPY pyproject.toml README.md LICENSE /src/
COPY llmdoctor /src/llmdoctor
RUN pip install --no-cache-dir "/src[${EXTRAS}]" && useradd --create-home doctor
USER doctor
WORKDIR /work
ENTRYPOINT ["llmdoctor"]
CMD ["look", "."]
