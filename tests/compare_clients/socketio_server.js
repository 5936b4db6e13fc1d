// Socket.IO as it is best at this: connection state recovery over Redis streams. PORT REDIS_PORT
"use strict";
const http = require("http");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/redis-streams-adapter");
const { createClient } = require("redis");

const [port, redisPort] = process.argv.slice(2);

async function main() {
  const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  redis.on("error", () => {}); // it connects again by itself
  await redis.connect();
  let io;
  const server = http.createServer((request, response) => {
    const n = Number(new URL(request.url, "http://x").searchParams.get("n"));
    io.to("room").emit("event", { n });
    response.end("ok");
  });
  io = new Server(server, {
    transports: ["websocket"], perMessageDeflate: false, serveClient: false,
    adapter: createAdapter(redis), connectionStateRecovery: { maxDisconnectionDuration: 120000 },
  });
  io.on("connection", (socket) => socket.join("room"));
  server.listen(Number(port), "127.0.0.1");
}

process.on("unhandledRejection", () => {}); // of writes to a Redis that is away
main();
