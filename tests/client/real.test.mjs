// The contract's table against real nodes: what only a server can say.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";

import WebSocket from "ws";

import { Api, InterviewWatch, Room, node } from "../../coordinator/client/room.js";

const about = JSON.parse(process.env.ABOUT);
const { url, otherUrl, hostToken, adminToken, apiKey } = about;
const platform = node({ WebSocket });
const slowness = Number(process.env.SLOWNESS || 1); // times a second of a quiet machine
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(holds, what, seconds = 20) {
  const end = Date.now() + seconds * 1000 * slowness;
  while (!holds()) {
    if (Date.now() > end) assert.fail(`never came true: ${what}`);
    await wait(20);
  }
}

/** Node's platform, and every socket that it made. */
function watched() {
  const made = [];
  class Socket extends WebSocket {
    constructor(...options) {
      super(...options);
      made.push(this);
    }
  }
  return { ...node({ WebSocket: Socket }), made };
}

const host = new Api({ base: url, platform, token: hostToken });

async function newRoom() {
  const roomId = `room_${Math.random().toString(36).slice(2)}`;
  await host.createRoom({ roomId, roomName: "R", hostName: "张经理" });
  return roomId;
}

async function log(roomId) {
  const events = [];
  for (;;) {
    const page = await host.events(roomId, { after: events.length, limit: 500 });
    events.push(...page.events);
    if (!page.hasMore) return events;
  }
}

const rooms = [];
after(() => rooms.forEach((room) => room.close())); // what is live keeps Node running

function follow(options) {
  const room = new Room(options);
  rooms.push(room);
  const told = { events: [], resets: [], stops: [] };
  room.on("event", (event) => told.events.push(event));
  room.on("reset", (reset) => told.resets.push(reset));
  room.on("stopped", (end) => told.stops.push(end));
  room.connect();
  return { room, told };
}

async function live(options) {
  const it = follow(options);
  await until(() => it.room.state.status === "live", `live: ${JSON.stringify(it.told)}`);
  return it;
}

async function guest(roomId, base = url) {
  const on = watched();
  const api = new Api({ base, platform: on });
  const { guestId } = await api.join({ roomId, userName: "李明", identity: "求职者" });
  return { api, guestId, on, ...(await live({ api, roomId })) };
}

async function stopped({ told }) {
  await until(() => told.stops.length, "stopped");
  return told.stops[0].code;
}

describe("against real nodes", { concurrency: 4 }, () => {
  test("two people at two nodes see each other come, go away, return and leave", async () => {
    const roomId = await newRoom();
    const mine = await live({ api: host, roomId });
    const { room, on, guestId, told } = await guest(roomId, otherUrl);
    const who = () => mine.room.state.participants.find(({ userId }) => userId === guestId);
    await until(() => who() && who().connection === "online", "online");
    on.made[0].terminate();
    await until(() => room.state.status === "live" && on.made.length === 2, "back");
    await room.leave();
    await until(() => !who(), "left");
    await host.endRoom(roomId);
    assert.equal(await stopped(mine), 4010);
    const events = await log(roomId);
    assert.deepEqual(mine.told.events, events.slice(events.length - mine.told.events.length));
    const seqs = told.events.map(({ seq }) => seq);
    assert.deepEqual(seqs, seqs.map((_, n) => seqs[0] + n));
  });

  test("the roster is that of REST, in its order and with its members", async () => {
    const roomId = await newRoom();
    const it = await guest(roomId);
    await guest(roomId, otherUrl);
    const { participants, participantCount } = await it.api.room(roomId);
    await until(() => it.room.state.participantCount === participantCount, "all there");
    await until(() => it.room.state.onlineCount === 2, "both are online");
    assert.deepEqual(it.room.state.participants, (await it.api.room(roomId)).participants, participants);
    assert.ok(it.room.state.epoch);
  });

  test("4003, 4004, 4005, 4006, 4010, 4301: each stops", async () => {
    const roomId = await newRoom();
    const stranger = await guest(await newRoom());
    const { token } = { token: stranger.api.guest(stranger.room.roomId).guestToken };
    const codes = await Promise.all([
      stopped(follow({ base: url, platform, roomId, token })),
      stopped(follow({ base: url, platform, roomId: "nowhere", token: adminToken })),
      stopped(follow({ base: url, platform, roomId, token: "no.token.atall" })),
    ]);
    assert.deepEqual(codes, [4003, 4004, 4301]);
    const many = [];
    for (let n = 0; n < 6; n++) many.push(await live({ api: host, roomId }));
    assert.equal(await stopped(many[0]), 4006);
    const removed = await guest(roomId);
    await host.remove(roomId, removed.guestId);
    assert.equal(await stopped(removed), 4005);
    await assert.rejects(removed.api.join({ roomId, userName: "李明" }), { code: "FORBIDDEN", status: 403 });
    removed.api.forget(roomId);
    assert.notEqual((await removed.api.join({ roomId, userName: "李明" })).guestId, removed.guestId);
    await host.endRoom(roomId);
    assert.equal(await stopped(many[5]), 4010);
    assert.equal(await stopped(follow({ api: removed.api, roomId })), 4010);
  });

  test("a guest's token is renewed before it ends, on the same socket", async () => {
    const { roomId, guestId, guestToken } = about.shortLived;
    const kept = new Map([[`coordinator:${url}:guest:${roomId}`, JSON.stringify({ guestId, guestToken, userName: "李明" })]]);
    const storage = { get: (k) => kept.get(k), set: (k, v) => kept.set(k, v), remove: (k) => kept.delete(k) };
    const on = watched();
    const api = new Api({ base: url, platform: on, storage });
    const it = await live({ api, roomId });
    await wait(about.shortLived.seconds * 1000 + 1000);
    assert.equal(it.room.state.status, "live");
    assert.equal(on.made.length, 1);
    assert.notEqual(api.guest(roomId).guestToken, guestToken);
    it.room.close();
  });

  test("a token that has ended is renewed by a return, and staff ask getToken", async () => {
    const { roomId, guestId, guestToken } = about.expired;
    const api = new Api({ base: url, platform });
    api.keep(`guest:${roomId}`, { guestId, guestToken, userName: "李明" });
    const it = await live({ api, roomId });
    assert.equal(it.room.state.self.userId, guestId);
    const reasons = [];
    const staff = await live({
      base: url, platform, roomId: await newRoom(), token: about.expiredHostToken,
      getToken: async ({ reason }) => reasons.push(reason) && hostToken,
    });
    assert.deepEqual(reasons, ["expired"]);
    it.room.close();
    staff.room.close();
  });

  test("roster none: counts that are right, also after a resumption", async () => {
    const roomId = await newRoom();
    const on = watched();
    const counter = await live({ base: url, platform: on, roomId, token: hostToken, roster: "none" });
    const other = await guest(roomId, otherUrl);
    await until(() => counter.room.state.onlineCount === 2, "two are online");
    assert.deepEqual([counter.room.state.participants, counter.room.state.participantCount], [[], 2]);
    on.made[0].terminate();
    await until(() => counter.room.state.status !== "live", "lost");
    other.room.close();
    await until(() => counter.room.state.status === "live" && counter.room.state.onlineCount === 1, "one is online");
    assert.equal(counter.room.state.participantCount, 2);
    counter.room.close();
  });

  test("who observes is on no roster, and leaving is no event", async () => {
    const roomId = await newRoom();
    const it = await live({ api: host, roomId, observe: true });
    assert.equal(it.room.state.self.role, "observer");
    assert.equal(it.room.state.onlineCount, 0);
    const before = (await log(roomId)).length;
    await it.room.leave();
    assert.equal((await log(roomId)).length, before);
  });

  test("too much was missed: one reset, and on from there", async () => {
    const roomId = await newRoom();
    const it = await guest(roomId);
    const { seq } = it.room.state;
    it.room.link.handle({ type: "network", online: false }, Date.now());
    it.on.made[0].terminate();
    for (let n = 0; n < 320; n += 20) {
      const joins = Array.from({ length: 20 }, (_, k) => new Api({ base: url, platform }).join({ roomId, userName: `${n + k}` }));
      await Promise.all(joins);
    }
    it.room.feed({ type: "network", online: true });
    await until(() => it.told.resets.length === 1, "a reset");
    const [reset] = it.told.resets;
    assert.ok(reset.fromSeq >= seq && reset.seq >= reset.fromSeq + 300);
    await host.remove(roomId, (await new Api({ base: url, platform }).join({ roomId, userName: "x" })).guestId);
    const events = await log(roomId);
    await until(() => it.room.state.seq === events.length, "all of it");
    const after = it.told.events.filter((event) => event.seq > reset.seq);
    assert.deepEqual(after, events.slice(reset.seq));
    it.room.close();
  });

  test("an interview's progress, with a key", async () => {
    const { interviewId } = about;
    const watch = new InterviewWatch({ api: new Api({ base: url, platform }), interviewId, key: apiKey });
    const types = [];
    watch.on("event", ({ type }) => types.push(type));
    watch.connect();
    await until(() => watch.state.status === "live", "live");
    assert.equal(watch.state.interview.status, "IN_PROGRESS");
    await fetch(`${otherUrl}/api/open/interviews/${interviewId}`, {
      method: "PATCH",
      headers: { "X-API-Key": apiKey },
      body: JSON.stringify({ answers: [{ questionIndex: 0, question: "q", answer: "a", score: 8, maxScore: 10 }] }),
    });
    await until(() => types.length === 1, "updated");
    assert.equal(watch.state.interview.answeredCount, 1);
    watch.close();
    const refused = new InterviewWatch({ api: new Api({ base: url, platform }), interviewId, key: "x".repeat(20) });
    const stops = [];
    refused.on("stopped", (end) => stops.push(end.code));
    refused.connect();
    await until(() => stops.length, "stopped");
    assert.deepEqual(stops, [4301]);
  });

  test("what fails is an ApiError that says what", async () => {
    await assert.rejects(host.room("nowhere"), { name: "ApiError", code: "ROOM_NOT_FOUND", status: 404, message: "房间不存在" });
    await assert.rejects(new Api({ base: url, platform }).rooms(), { code: "UNAUTHORIZED", status: 401 });
    await assert.rejects(new Api({ base: "http://127.0.0.1:9", platform }).room("r"), { code: "NETWORK", status: 0 });
    const { list, total } = await host.rooms({ page: 1, pageSize: 1, status: undefined });
    assert.ok(total >= list.length && list.length === 1);
  });
});
