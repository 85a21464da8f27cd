# Layeryard in an image. `layeryard build -t layeryard .` builds it, and so does any other builder.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:12-slim
# Of Cargo.toml. `dev` is ready in half the time.
ARG PROFILE=release

FROM ${RUST_IMAGE} AS build
ARG PROFILE
WORKDIR /src
COPY . .
RUN cargo build --profile "$PROFILE" --locked -p layeryard && cp target/*/layeryard /usr/local/bin/layeryard

FROM ${RUNTIME_IMAGE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/apt /var/cache/ldconfig/aux-cache
COPY --from=build /usr/local/bin/layeryard /usr/local/bin/layeryard
ENV LAYERYARD_DATA_DIR=/var/lib/layeryard
VOLUME /var/lib/layeryard
EXPOSE 5000
ENTRYPOINT ["layeryard"]
CMD ["serve", "--listen", "0.0.0.0:5000", "--config", "/etc/layeryard/layeryard.toml"]
