# docker build -t bench . && docker run --rm --gpus all -v "$PWD/out:/out" bench run --family deit3 --sizes base --work /out/work --results /out/results
FROM python:3.11-slim
COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY benchmark /src/benchmark
COPY families /src/families
# torch brings its CUDA libraries; the GPU's driver is the host's.
RUN pip install --no-cache-dir -c /src/constraints.txt /src
WORKDIR /out
ENTRYPOINT ["bench"]
