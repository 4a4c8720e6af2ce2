# One image for every process of the Procfile: docker run --env-file .env throughline worker
FROM python:3.12-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin throughline \
 && python -m venv /opt/venv
WORKDIR /app
COPY requirements-build.txt requirements.txt ./
RUN pip install --require-hashes -r requirements-build.txt \
 && pip install --require-hashes --no-build-isolation -r requirements.txt
COPY . .
RUN pip install --no-deps --no-build-isolation -e . && install -d -o throughline metrics
ENV PROMETHEUS_MULTIPROC_DIR=/app/metrics PYTHONDONTWRITEBYTECODE=1
USER throughline
EXPOSE 8000 5555
# What dead processes of an earlier start left would be counted on.
ENTRYPOINT ["sh", "-c", "rm -f \"$PROMETHEUS_MULTIPROC_DIR\"/*.db; exec local/run \"$@\"", "--"]
CMD ["web"]
