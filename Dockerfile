# syntax=docker/dockerfile:1

# A static program in an empty image: nothing else to update, nothing else to break into.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /build
COPY . .
# The date of the commit: --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct). A clock before it is taken for wrong.
ARG SOURCE_DATE_EPOCH
# When all crates become one program nothing more is inlined than makes it small, which costs a beacon 4 %, and its
# relocations are packed: a megabyte less.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo rustc --profile dist --locked --bin footfall -- -C opt-level=s -C link-arg=-Wl,-z,pack-relative-relocs \
    && mkdir -p /image/data \
    && cp target/dist/footfall /image/footfall

FROM scratch
COPY --from=build /image/footfall /footfall
COPY --from=build --chown=65532:65532 /image/data /data

# In a container the listeners must be reached from outside it. Publish 8081 to your monitoring only.
ENV FOOTFALL_LISTEN=0.0.0.0:8080 \
    FOOTFALL_ADMIN_LISTEN=0.0.0.0:8081 \
    FOOTFALL_DATA_DIR=/data

USER 65532:65532
VOLUME /data
EXPOSE 8080 8081

# A stop takes up to `stop_timeout` (10 s): give the container a little more (`docker stop -t 15`).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/footfall", "healthcheck"]

ENTRYPOINT ["/footfall"]
