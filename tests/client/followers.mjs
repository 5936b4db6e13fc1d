// Many clients of many rooms in one process, told by lines on stdin what to do.
//
//   ABOUT = {nodes: [url], rooms: [roomId], clients, seed}
//   "calm"    nobody acts any more, everybody is in the foreground and online
//   "report"  waits until everybody is where `{"logs": {roomId: lastSeq}}` of this line says, or 60 s (of a
//             quiet machine); prints one JSON line per client: {roomId, userId, status, seq, epoch, error, participants, segments}
//
// A segment is what a client was told between two resets: {fromSeq, events}. Each client finds its
// node anew at every connection and call, as behind a load balancer that knows of no deaths.
import { createInterface } from "node:readline";

import WebSocket from "ws";

import { Api, Room, node } from "../../coordinator/client/room.js";

const about = JSON.parse(process.env.ABOUT);
const plain = node({ WebSocket });
const slowness = Number(process.env.SLOWNESS || 1); // times a second of a quiet machine
let isCalm = false;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const any = (list) => list[Math.floor(Math.random() * list.length)];

/** Node's platform behind a load balancer, on a device that has a background. */
class Device {
  constructor() {
    this.tell = () => {};
    this.raw = null;
    const device = this;
    this.Socket = class extends WebSocket {
      constructor(...options) {
        super(...options);
        device.raw = this;
      }
    };
    const { open } = node({ WebSocket: this.Socket });
    this.platform = {
      request: (request) => plain.request({ ...request, url: this.route(request.url) }),
      open: (options) => open({ ...options, url: this.route(options.url, "ws") }),
      listen: (tell) => {
        this.tell = tell;
        return () => (this.tell = () => {});
      },
    };
  }

  route(url, scheme = "http") {
    const at = new URL(url);
    return any(about.nodes).replace("http", scheme) + at.pathname + at.search;
  }
}

class Follower {
  constructor(number) {
    this.number = number;
    this.roomId = about.rooms[number % about.rooms.length];
    this.device = new Device();
    this.api = new Api({ base: "http://balanced", platform: this.device.platform });
    this.counts = { joins: 0, leaves: 0, resets: 0, losses: 0, stops: {} };
    this.room = null;
    this.segments = [];
  }

  async lives() {
    await this.joins();
    while (!isCalm) {
      await wait(500 + Math.random() * 3500);
      if (isCalm) return;
      const dice = Math.random();
      if (dice < 0.08) await this.leaves().then(() => this.joins());
      else if (dice < 0.16 && this.device.raw) this.device.raw.terminate();
      else if (dice < 0.2 && this.device.raw) this.device.raw.close(1000);
      else if (dice < 0.26) await this.hides();
      else if (dice < 0.29) await this.loses();
    }
  }

  async joins() {
    for (;;) {
      try {
        await this.api.join({ roomId: this.roomId, userName: `李明 ${this.number}` });
        break;
      } catch (error) {
        if (!["NETWORK", "TIMEOUT", "SERVICE_UNAVAILABLE", "INTERNAL_ERROR"].includes(error.code)) throw error;
        await wait(200 + Math.random() * 800);
      }
    }
    this.counts.joins++;
    this.segments.push({ fromSeq: null, events: [] });
    this.room = new Room({ api: this.api, roomId: this.roomId });
    this.room.on("event", (event) => this.segments[this.segments.length - 1].events.push(event));
    this.room.on("reset", ({ seq }) => {
      this.counts.resets++;
      this.segments.push({ fromSeq: seq, events: [] });
    });
    this.room.on("change", ({ status }) => (this.counts.losses += status === "waiting"));
    this.room.on("stopped", ({ code }) => (this.counts.stops[code] = (this.counts.stops[code] || 0) + 1));
    this.room.connect();
  }

  async leaves() {
    await this.room.leave();
    this.room.close();
    this.api.forget(this.roomId);
    this.counts.leaves++;
  }

  async hides() {
    this.device.tell("background");
    await wait(Math.random() * 4000);
    this.device.tell("foreground");
  }

  async loses() {
    this.device.tell("network", false);
    await wait(Math.random() * 2000);
    this.device.tell("network", true);
  }

  isThere(lastSeq) {
    const { status, seq } = this.room.state;
    return status === "live" && seq === lastSeq;
  }

  report() {
    const { status, seq, epoch, error, participants, self } = this.room.state;
    const { roomId, segments, counts } = this;
    return { roomId, userId: self && self.userId, status, seq, epoch, error, participants, segments, counts };
  }
}

const followers = Array.from({ length: about.clients }, (_, number) => new Follower(number));
const lives = followers.map((follower) => follower.lives());
lives.forEach((life) => life.catch((error) => {
  console.error("a follower died:", error);
  process.exit(1);
}));
console.log(JSON.stringify({ started: followers.length }));

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.do === "calm") {
    isCalm = true;
    await Promise.all(lives);
    console.log(JSON.stringify({ calm: true }));
  } else if (order.do === "report") {
    const end = Date.now() + 60_000 * slowness;
    const isDone = () => followers.every((follower) => follower.isThere(order.logs[follower.roomId]));
    while (!isDone() && Date.now() < end) await wait(50);
    for (const follower of followers) console.log(JSON.stringify(follower.report()));
  }
}
