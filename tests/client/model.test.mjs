// The client against a model of server, network and device: random schedules in virtual time.
//
// What must hold after every step: one socket at most; every event exactly once and in order
// between resets; the state is what the log says; nothing is left after close. And in the end of
// each episode, when all is well again: it is live, and knows the whole log.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Room } from "../../coordinator/client/room.js";
import { FakePlatform, VirtualTime } from "./virtual.mjs";

const STEPS = Number(process.env.MODEL_STEPS || 100_000);
const SEED = Number(process.env.MODEL_SEED || 20260101);
const EPISODE = 400;

/** mulberry32: the same schedule for the same seed. */
function chance(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** The roster that a log gives, told in another way than the client tells it. */
function rosterOf(log) {
  const people = [];
  for (const { type, participant } of log) {
    const at = participant ? people.findIndex(({ userId }) => userId === participant.userId) : -1;
    if (type === "participant_joined") people.push(participant);
    else if (type === "participant_left") people.splice(at, 1);
    else if (type === "participant_renamed") people[at] = { ...people[at], userName: participant.userName };
    else if (type === "participant_away") people[at] = { ...people[at], connection: "away" };
    else people[at] = { ...people[at], connection: "online" };
  }
  return people;
}

/** A room's log and its sockets. */
class Server {
  constructor(draw, platform, time) {
    Object.assign(this, { draw, platform, time, log: [], epoch: "e1", isAway: false });
    this.sessions = new Map(); // socket -> { isDead, isGreeted, queue, sent, read }
  }

  pick(list) {
    return list[Math.floor(this.draw() * list.length)];
  }

  commits() {
    const people = rosterOf(this.log);
    const who = this.pick(people);
    const seq = this.log.length + 1;
    const event = { roomId: "room_1", seq, at: `${this.epoch}-${seq}` };
    if (!who || (people.length < 6 && this.draw() < 0.4)) {
      const userId = `guest_${this.epoch}_${seq}`;
      event.type = "participant_joined";
      event.participant = { userId, userName: userId, role: "guest", joinedAt: event.at, connection: "none" };
    } else {
      const { userId, userName, role } = who;
      event.type = this.pick(["participant_left", "participant_online", "participant_away", "participant_back"]);
      event.participant = { userId, userName, role };
      if (this.draw() < 0.05) {
        event.type = "participant_renamed"; // of a version that the client does not know
        event.participant.userName = `new_${seq}`;
      }
    }
    this.log.push(event);
    for (const session of this.sessions.values()) if (session.isGreeted) session.queue.push(event);
  }

  /** The database becomes another history. */
  fails() {
    this.log = this.log.slice(0, Math.max(0, this.log.length - Math.floor(this.draw() * 4)));
    this.epoch = `e${Number(this.epoch.slice(1)) + 1}`;
    for (const [socket, session] of this.sessions) {
      session.queue = session.queue.filter((event) => this.log.includes(event));
      const knows = session.sent <= this.log.length && this.log[session.sent - 1] === session.last;
      if (session.isGreeted && !knows) this.closes(socket, 4201, { afterMs: 500 });
    }
    const lost = this.draw() * 3;
    for (let n = 0; n < lost; n++) this.commits();
  }

  closes(socket, code, members = {}) {
    const session = this.sessions.get(socket);
    this.sessions.delete(socket);
    if (!session || session.isDead) return;
    if (this.draw() < 0.8) socket.says({ type: "bye", code, reason: "model", retry: "x", ...members });
    if (this.draw() < 0.8) socket.end(code);
    if (this.draw() < 0.2) socket.end(1006);
  }

  /** The other end of every socket that the client holds does its part. */
  serves() {
    for (const socket of this.platform.sockets) {
      if (socket.isSeen || socket.isOver || socket.wasClosed) continue;
      socket.isSeen = true;
      this.sessions.set(socket, { isDead: false, isGreeted: false, queue: [], sent: 0, read: 0 });
    }
    for (const [socket, session] of this.sessions) {
      if (socket.isOver) this.sessions.delete(socket);
      else if (socket.wasClosed) {
        this.sessions.delete(socket);
        if (this.draw() < 0.7) socket.end(1000);
      } else if (!session.isDead) this.serve(socket, session);
    }
    // Only the last few can still have something to say.
    while (this.platform.sockets.length > 6) this.platform.sockets.shift();
  }

  serve(socket, session) {
    if (!session.isGreeted && this.draw() < 0.7) {
      socket.opens();
      const { searchParams } = socket.url;
      this.greets(socket, session, searchParams.get("since"), searchParams.get("epoch"));
    }
    while (session.read < socket.sent.length) this.hears(socket, session, socket.sent[session.read++]);
  }

  greets(socket, session, since, epoch) {
    const known = since === null || since === undefined ? NaN : Number(since);
    const isResume = epoch === this.epoch && known <= this.log.length && this.log.length - known < 20;
    const isFirst = !session.isGreeted;
    session.isGreeted = true;
    const from = isResume ? known : this.log.length;
    const rest = { self: { userId: "guest_me", role: "guest" }, pingMs: 25000, now: new Date(this.time.now).toISOString() };
    if (isFirst && this.draw() < 0.3) rest.tokenExpiresAt = new Date(this.time.now + 90_000).toISOString();
    session.queue = isResume ? this.log.slice(known) : [];
    if (isResume && !isFirst) return;
    const snapshot = isResume ? {} : { room: { status: "active" }, participants: rosterOf(this.log) };
    socket.says({ type: "welcome", seq: from, epoch: this.epoch, resumed: isResume, ...snapshot, ...rest });
    this.marks(session, from);
  }

  marks(session, seq) {
    session.sent = seq;
    session.last = this.log[seq - 1];
  }

  hears(socket, session, frame) {
    if (frame.type === "ping") this.pings(socket, session, "pong");
    else if (frame.type === "sync") this.greets(socket, session, frame.since, frame.epoch);
    else if (frame.type === "leave") this.closes(socket, 1000);
    else if (frame.type === "refresh") {
      socket.says({ type: "refreshed", tokenExpiresAt: new Date(this.time.now + 90_000).toISOString() });
    }
  }

  pings(socket, session, type = "ping") {
    if (!session.isGreeted) return;
    const seq = type === "pong" && this.draw() < 0.5 ? session.sent : this.log.length;
    socket.says({ type, seq, epoch: this.epoch, now: "" });
  }

  delivers(socket, session, isFaulty) {
    while (session.queue.length && (this.draw() < 0.8 || !isFaulty)) {
      const event = session.queue.shift();
      if (isFaulty && this.draw() < 0.05) continue; // lost
      this.marks(session, event.seq);
      socket.says(event);
      if (isFaulty && this.draw() < 0.1) socket.says(event); // doubled
    }
  }

  each(act) {
    for (const [socket, session] of [...this.sessions]) if (!session.isDead) act(socket, session);
  }
}

class Schedule {
  constructor(draw, time) {
    Object.assign(this, { draw, time, platform: new FakePlatform(), told: null });
    this.violations = [];
    this.answers = []; // of getToken, held back
    const { open } = this.platform;
    this.platform.open = (options) => {
      const open_ = this.platform.sockets.filter((socket) => socket.holds);
      if (open_.length) this.violations.push("two sockets at once");
      return open(options);
    };
    this.server = new Server(draw, this.platform, time);
    this.starts();
  }

  starts() {
    this.room = new Room({
      base: "http://h", roomId: "room_1", platform: this.platform, random: this.draw,
      getToken: async () => {
        if (this.isFaulty && this.draw() < 0.2) throw new Error("no network");
        if (this.isFaulty && this.draw() < 0.3) await new Promise((answer) => this.answers.push(answer));
        return `t${Math.floor(this.draw() * 1e6)}`;
      },
    });
    this.told = null;
    this.history = [];
    this.room.on("event", (event) => this.hears(event));
    this.room.on("reset", ({ fromSeq, seq }) => {
      if (this.told !== null && fromSeq !== this.told) this.violations.push("reset from elsewhere");
      this.told = seq;
      this.history = [];
    });
    this.room.connect();
  }

  hears(event) {
    const { seq } = event;
    if (this.told !== null && seq !== this.told + 1) this.violations.push(`told ${seq} after ${this.told}`);
    if (JSON.stringify(this.server.log[seq - 1]) !== JSON.stringify(event)) {
      this.violations.push(`told ${seq} of another log`);
    }
    this.told = seq;
    this.history.push(event);
  }

  async step() {
    const { server, platform, time } = this;
    const isBad = this.isFaulty;
    const act = Math.floor(this.draw() * 26);
    if (act < 7) server.commits();
    else if (act === 7) server.each((socket) => server.closes(socket, server.pick([4100, 4102, 4103])));
    else if (act === 8) server.each((socket) => server.closes(socket, server.pick([4200, 4201]), { afterMs: 900 }));
    else if (act === 9) server.each((socket) => socket.end(server.pick([1000, 1001, 1006, 1012])));
    else if (act === 10) server.each((socket, session) => (session.isDead = true)); // and nobody is told
    else if (act === 11) server.each((socket, session) => session.isGreeted && server.closes(socket, 4300));
    else if (act === 12) platform.tell("network", server.draw() < 0.4);
    else if (act === 13) platform.tell(server.draw() < 0.5 ? "background" : "foreground");
    else if (act === 14) platform.tell(server.draw() < 0.5 ? "suspend" : "poke");
    else if (act === 15) server.each((socket, session) => server.pings(socket, session));
    else if (act === 16) this.haunts();
    else if (act === 17 && this.draw() < 0.2) server.fails();
    else if (act === 18) this.room.connect();
    else if (act === 19) platform.isRefusing = this.draw() < 0.3;
    else if (act === 20) await time.sleep(this.draw() * 600_000);
    else if (act === 21) server.each((socket) => (socket.fails = this.draw() < 0.1));
    else if (act === 22) platform.tell("looked", server.draw() < 0.7);
    else if (act === 23) this.answers.splice(0).forEach((answer) => answer());
    else await time.advance(this.draw() * (this.draw() < 0.1 ? 60_000 : 2_000));
    server.serves();
    server.each((socket, session) => server.delivers(socket, session, isBad));
    await time.advance(this.draw() * 20);
    this.check();
  }

  /** Sockets that are long gone speak. */
  haunts() {
    const old = this.platform.sockets.filter((socket) => socket.wasClosed || socket.isOver);
    for (const socket of old) {
      socket.opens();
      socket.says({ type: "welcome", seq: 1e6, epoch: "x", resumed: false, participants: [] });
      socket.says({ type: "bye", code: 4010, reason: "x", retry: "no" });
      socket.end(4010);
    }
  }

  check() {
    const { state } = this.room;
    if (state.status === "live" && !this.room.link.isStale) {
      const log = this.server.log.slice(0, state.seq);
      const isOfEpoch = state.epoch === this.server.epoch && state.seq <= this.server.log.length;
      if (isOfEpoch && JSON.stringify(rosterOf(log)) !== JSON.stringify(state.participants)) {
        this.violations.push(`the state at ${state.seq} is another`);
      }
      for (const event of isOfEpoch ? this.history.slice(-5) : []) {
        const { seq } = event;
        if (JSON.stringify(event) !== JSON.stringify(log[seq - 1])) this.violations.push(`${seq} was another`);
      }
    }
    assert.deepEqual(this.violations, []);
  }

  /** Everything is well again: soon the client is. */
  async recovers() {
    const { platform, server, time } = this;
    this.isFaulty = false;
    platform.isRefusing = false;
    platform.tell("foreground");
    platform.tell("looked", true);
    for (let n = 0; n < 600; n++) {
      server.each((socket) => (socket.fails = false));
      if (n === 300 && this.draw() < 0.3) server.fails();
      if (n % 100 === 0) server.each((socket, session) => server.pings(socket, session));
      server.serves();
      server.each((socket, session) => server.delivers(socket, session, false));
      await time.advance(250);
    }
    this.check();
    const { status, seq, epoch } = this.room.state;
    assert.deepEqual({ status, seq, epoch }, { status: "live", seq: server.log.length, epoch: server.epoch });
    const since = this.history.map((event) => JSON.stringify(event));
    const log = this.history.map((event) => JSON.stringify(server.log[event.seq - 1]));
    assert.deepEqual(since, log, "what was told since the last reset is what the log says");
    assert.deepEqual(JSON.stringify(this.room.state.participants), JSON.stringify(rosterOf(server.log)));
  }

  async ends() {
    if (this.draw() < 0.5) {
      let isLeft = false;
      this.room.leave().then(() => (isLeft = true));
      for (let n = 0; n < 1000 && !isLeft; n++) {
        this.server.serves();
        await this.time.advance(250);
      }
      assert.ok(isLeft, "never left");
    }
    this.room.close();
    await this.time.settle();
    assert.equal(this.time.timers.size, 0, "a timer is left");
    assert.equal(this.platform.listeners.size, 0, "a listener is left");
    assert.ok(this.platform.sockets.every((socket) => !socket.holds), "a socket is left");
  }
}

test(`${STEPS} random steps of server, network and device (seed ${SEED})`, { timeout: 120_000 }, async () => {
  const time = new VirtualTime().install();
  try {
    for (let done = 0, episode = 0; done < STEPS; episode++) {
      const schedule = new Schedule(chance(SEED + episode), time);
      schedule.isFaulty = true;
      try {
        for (let n = 0; n < EPISODE && done < STEPS; n++, done++) await schedule.step();
        await schedule.recovers();
        await schedule.ends();
      } catch (error) {
        error.message += ` (episode ${episode})`;
        throw error;
      }
    }
  } finally {
    time.uninstall();
  }
});
