FROM node:20-bookworm
WORKDIR /opt/holdfast
COPY . .
RUN node scripts/setup.mjs
ENTRYPOINT ["node", "/opt/holdfast/packages/cli/bin/holdfast.js"]
