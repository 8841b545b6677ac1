# The image of a node. Attaching volumes to the host from a container needs --privileged and shared mounts: for hosts that
# run containers, the packages of deploy/README.md are the simpler way.
FROM node:20-bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make python3 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /opt/holdfast
COPY . .
RUN node scripts/setup.mjs && npm prune --omit=dev --ignore-scripts && rm -rf .setup test bench docs native/build/Release/obj*

FROM node:20-bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends mount util-linux e2fsprogs xfsprogs libnbd-bin fuse3 \
  && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=build /opt/holdfast /opt/holdfast
RUN ln -s /opt/holdfast/packages/cli/bin/holdfast.js /usr/local/bin/holdfast
# Half of the threads may look names up: those of members that are away can take a resolver many seconds.
ENV NODE_ENV=production UV_THREADPOOL_SIZE=16
VOLUME /data
EXPOSE 10809 5705 5710
HEALTHCHECK --interval=10s --start-period=20s CMD ["node", "-e", "fetch('http://127.0.0.1:5705/readyz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# The runtime's own code on large pages, a young generation that rest does not shrink, compiled code that outlives a lull
# (docs/decisions, 27, 28 and 35).
ENTRYPOINT ["node", "--use-largepages=silent", "--min-semi-space-size=16", "--no-memory-reducer", "/opt/holdfast/packages/cli/bin/holdfast.js"]
