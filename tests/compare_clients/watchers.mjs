// Many clients of one kind behind a balancer that lets no dead node be noticed, told by lines on stdin.
//
//   ABOUT = {kind, ports, clients, modules, room, token}
//   {"do": "cut"}, {"do": "away"}, {"do": "back"}   all connections; the whole network
//   {"do": "report"}   prints {sizes: received bytes, clients: [[[n, at], …], …]}: every event as it was told
import { createRequire } from "node:module";
import net from "node:net";
import { createInterface } from "node:readline";

import { Room, node } from "../../coordinator/client/room.js";

const about = JSON.parse(process.env.ABOUT);
const require = createRequire(about.modules + "/x.js");
const WebSocket = require("ws");

let isAway = false;
let bytes = 0;
const sockets = new Set();

/** Leads to a node that answers; another is tried where one refuses. */
const balancer = net.createServer((client) => {
  if (isAway) return client.destroy();
  sockets.add(client);
  client.on("close", () => sockets.delete(client)).on("error", () => {});
  const ports = [...about.ports].sort(() => Math.random() - 0.5);
  const lead = () => {
    const port = ports.pop();
    if (!port) return client.destroy();
    const server = net.connect(port, "127.0.0.1");
    server.once("error", lead);
    server.once("connect", () => {
      server.off("error", lead);
      server.on("error", () => {}).on("close", () => client.destroy());
      server.on("data", (data) => (bytes += data.length));
      client.on("close", () => server.destroy());
      client.pipe(server).pipe(client);
    });
  };
  lead();
});
await new Promise((resolve) => balancer.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${balancer.address().port}`;

const KINDS = {
  coordinator(told) {
    const room = new Room({ base: url, roomId: about.room, token: about.token, observe: true, platform: node({ WebSocket }) });
    room.on("event", ({ type, participant }) => type === "participant_joined" && told(Number(participant.userName)));
    return new Promise((resolve) => {
      room.on("change", ({ status }) => status === "live" && resolve());
      room.connect();
    });
  },
  socketio(told) {
    const { io } = require("socket.io-client");
    const socket = io(url, { transports: ["websocket"], forceNew: true });
    socket.on("event", ({ n }) => told(n));
    return new Promise((resolve) => socket.on("connect", resolve));
  },
  centrifuge(told) {
    const Centrifuge = require("centrifuge");
    const client = new Centrifuge(url.replace("http", "ws") + "/connection/websocket", { websocket: WebSocket });
    return new Promise((resolve) => {
      client.subscribe(about.room, { publish: ({ data }) => told(data.n), subscribe: resolve });
      client.connect();
    });
  },
};

const heard = Array.from({ length: about.clients }, () => []);
await Promise.all(heard.map((all) => KINDS[about.kind]((n) => all.push([n, Date.now()]))));
console.log(JSON.stringify({ started: heard.length }));

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line).do;
  if (order === "report") {
    process.stdout.write(JSON.stringify({ bytes, clients: heard }) + "\n", () => process.exit(0));
    break;
  }
  if (order !== "cut") isAway = order === "away";
  if (order !== "back") for (const socket of sockets) socket.destroy();
}
