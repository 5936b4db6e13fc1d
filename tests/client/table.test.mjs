// Every row of the contract's table, in virtual time.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { Api, ApiError, InterviewWatch, Room, node } from "../../coordinator/client/room.js";
import { FakePlatform, HOST, VirtualTime, guest, joined, presence, resumed, welcome } from "./virtual.mjs";

let time;
let platform;

beforeEach(() => {
  time = new VirtualTime().install();
  platform = new FakePlatform();
});
afterEach(() => time.uninstall());

async function room(options = {}) {
  const made = new Room({ base: "https://h.example", roomId: "room_1", token: "t.o.k", platform, ...options });
  made.heard = { events: [], resets: [], stops: [], states: [], errors: [] };
  made.on("event", (event) => made.heard.events.push(event));
  made.on("reset", (reset) => made.heard.resets.push(reset));
  made.on("stopped", (end) => made.heard.stops.push(end));
  made.on("change", (state) => made.heard.states.push(state));
  made.connect();
  await time.settle();
  return made;
}

async function live(options = {}, greeting = {}) {
  const made = await room(options);
  platform.socket.opens();
  platform.socket.says(welcome(greeting));
  await time.settle();
  assert.equal(made.state.status, "live");
  return made;
}

describe("connecting", () => {
  test("the token goes into a subprotocol, never into the address", async () => {
    await room();
    const { url, options } = platform.socket;
    assert.equal(url.href, "wss://h.example/api/interview/room/room_1/live");
    assert.deepEqual(options.protocols, ["room.v1", "bearer.t.o.k"]);
  });

  test("what fits into no subprotocol is said in the first frame", async () => {
    await room({ token: "a b/=" });
    assert.deepEqual(platform.socket.options.protocols, []);
    platform.socket.opens();
    assert.deepEqual(platform.socket.sent, [{ type: "auth", token: "a b/=" }]);
  });

  test("idle, connecting, live; the state is that of the snapshot", async () => {
    const made = new Room({ base: "https://h.example/api/", roomId: "room_1", token: "t", platform });
    assert.equal(made.state.status, "idle");
    made.connect();
    assert.equal(made.state.status, "connecting");
    await time.settle();
    platform.socket.opens();
    platform.socket.says(welcome());
    const { room: about, ...state } = made.state;
    assert.equal(about.roomName, "R");
    assert.deepEqual(state, {
      status: "live", seq: 3, epoch: "e1", participants: [HOST, guest(1)], participantCount: 2,
      onlineCount: 2, self: { userId: "guest_1", role: "guest" }, retryAt: null, error: null,
    });
    assert.equal(platform.socket.url.pathname, "/api/interview/room/room_1/live");
  });

  test("connect twice is one connection", async () => {
    const made = await room();
    made.connect();
    await time.settle();
    assert.equal(platform.sockets.length, 1);
  });

  test("a socket that never answers is given up after 10 s, and its late words are nobody's", async () => {
    const made = await room();
    await time.advance(9_900);
    assert.ok(platform.socket.holds);
    await time.advance(700);
    assert.equal(platform.sockets.length, 2);
    platform.sockets[0].opens();
    platform.sockets[0].says(welcome({ seq: 99 }));
    platform.sockets[0].end(1006);
    platform.sockets[0].end(1006);
    assert.equal(made.state.status, "connecting");
    assert.equal(platform.sockets.length, 2);
    assert.ok(platform.socket.holds);
  });

  test("a socket that cannot be made, at once or later, is tried again", async () => {
    platform.isRefusing = true;
    const made = await room();
    assert.equal(made.state.status, "waiting");
    assert.ok(made.state.retryAt - time.now <= 500);
    platform.open = () => {
      throw new Error("suspended");
    };
    await time.advance(30_000);
    assert.equal(made.state.status, "waiting");
    assert.equal(made.state.error.reason, "suspended");
  });
});

describe("close codes", () => {
  for (const code of [4001, 4003, 4004, 4005, 4006, 4009, 4010]) {
    test(`${code} stops with its reason`, async () => {
      const made = await live();
      platform.socket.bye(code);
      await time.advance(120_000);
      assert.equal(made.state.status, "stopped");
      assert.deepEqual(made.heard.stops, [{ code, reason: `reason ${code}` }]);
      assert.equal(platform.sockets.length, 1);
      assert.equal(time.timers.size, 0);
      assert.equal(platform.listeners.size, 0);
    });
  }

  for (const code of [4100, 4101, 4102, 4103, 4199]) {
    test(`${code} waits 0.5 to 20 s, at random`, async () => {
      const waits = [];
      for (const draw of [0, 0.5, 0.999]) {
        platform = new FakePlatform();
        const made = await live({ random: () => draw });
        for (let n = 0; n < 8; n++) {
          platform.socket.bye(code);
          await time.settle();
          assert.equal(made.state.status, "waiting");
          const wait = made.state.retryAt - time.now;
          assert.ok(wait >= 500 && wait <= 20_000, `${wait}`);
          waits.push(wait);
          await time.advance(wait + 1);
          platform.socket.opens();
        }
        made.close();
      }
      assert.ok(Math.max(...waits) > 15_000);
      assert.equal(Math.min(...waits), 500);
    });
  }

  test("42xx returns within afterMs, with since and epoch", async () => {
    for (const [code, draw] of [[4200, 0.5], [4201, 0.999]]) {
      platform = new FakePlatform();
      const made = await live({ random: () => draw });
      platform.socket.says({ type: "bye", code, reason: "r", retry: "soon", afterMs: 4000 });
      await time.settle();
      assert.equal(made.state.retryAt - time.now, 4000 * draw);
      platform.socket.end(code);
      await time.advance(4000 * draw - 10);
      assert.equal(platform.sockets.length, 1);
      await time.advance(20);
      assert.equal(platform.sockets.length, 2);
      assert.equal(platform.socket.url.search, "?since=3&epoch=e1");
      made.close();
    }
  });

  test("an afterMs that is no time is a second; a pingMs that is none is the one before", async () => {
    for (const afterMs of [undefined, null, "soon", -5, {}]) {
      platform = new FakePlatform();
      const made = await live({}, { pingMs: afterMs });
      await time.advance(30_000);
      assert.deepEqual(platform.socket.sent, []);
      platform.socket.says({ type: "bye", code: 4200, reason: "r", retry: "soon", afterMs });
      platform.socket.end(4200);
      await time.advance(1000);
      assert.equal(platform.sockets.length, 2);
      made.close();
    }
  });

  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 4400]) {
    test(`${code} is a lost network: within 0.5 s, then less and less often`, async () => {
      const made = await live({ random: () => 0.999 });
      platform.socket.end(code);
      await time.settle();
      assert.equal(made.state.status, "waiting");
      assert.ok(made.state.retryAt - time.now <= 500);
      const waits = [];
      for (let n = 0; n < 9; n++) {
        await time.advance(made.state.retryAt - time.now + 1);
        platform.socket.end(1006);
        await time.settle();
        waits.push(made.state.retryAt - time.now);
      }
      assert.ok(waits.every((wait) => wait >= 500 && wait <= 20_000), `${waits}`);
      assert.ok(waits[0] <= 1000 && waits[8] > 19_000, `${waits}`);
      made.close();
    });
  }

  test("each of five losses in a row is mended at once; a server that dies each time is spared", async () => {
    const made = await live({ random: () => 0.999 });
    const waits = [];
    for (let n = 0; n < 12; n++) {
      platform.socket.end(1006);
      await time.settle();
      waits.push(made.state.retryAt - time.now);
      await time.advance(waits[n] + 1);
      platform.socket.opens();
      platform.socket.says(resumed(3));
    }
    assert.ok(waits.slice(0, 5).every((wait) => wait <= 500), `${waits}`);
    assert.ok(waits[11] > 5_000, `${waits}`);
    await time.advance(11_000);
    platform.socket.end(1006);
    await time.settle();
    assert.ok(made.state.retryAt - time.now <= 500);
  });

  test("a bye without a close is as good as one", async () => {
    const made = await live();
    platform.socket.says({ type: "bye", code: 4010, reason: "ended", retry: "no" });
    assert.equal(made.state.status, "stopped");
    assert.ok(platform.socket.wasClosed);
  });

  test("a closing socket holds up the next one for half a second at most", async () => {
    const made = await live({ random: () => 0 });
    platform.socket.says({ type: "bye", code: 4200, reason: "r", retry: "soon", afterMs: 0 });
    await time.advance(390);
    assert.equal(platform.sockets.length, 1);
    await time.advance(200);
    assert.equal(platform.sockets.length, 2);
    platform.sockets[0].end(4200);
    platform.sockets[0].end(4200);
    assert.ok(platform.socket.holds);
    made.close();
  });
});

describe("tokens", () => {
  test("getToken is asked before the first connect, and not at every other", async () => {
    const reasons = [];
    const made = await room({ token: undefined, getToken: ({ reason }) => reasons.push(reason) && "t1" });
    await time.settle();
    platform.socket.opens();
    platform.socket.says(welcome());
    platform.socket.end(1006);
    await time.advance(600);
    assert.deepEqual(reasons, ["connect"]);
    assert.equal(platform.sockets.length, 2);
    made.close();
  });

  test("43xx takes a new token; twice in a row stops", async () => {
    const reasons = [];
    const getToken = async ({ reason }) => `t${reasons.push(reason)}`;
    const made = await live({ getToken, token: "old" });
    platform.socket.bye(4300);
    await time.advance(10);
    assert.deepEqual(reasons, ["expired"]);
    assert.deepEqual(platform.socket.options.protocols, ["room.v1", "bearer.t1"]);
    platform.socket.opens();
    platform.socket.says(resumed(3));
    platform.socket.bye(4301);
    await time.advance(10);
    assert.deepEqual(reasons, ["expired", "invalid"]);
    platform.socket.opens();
    platform.socket.bye(4301);
    await time.advance(60_000);
    assert.deepEqual(made.heard.stops, [{ code: 4301, reason: "reason 4301" }]);
    assert.equal(platform.sockets.length, 3);
  });

  test("43xx without a way to a new token stops with that code", async () => {
    const made = await live();
    platform.socket.bye(4300);
    await time.advance(10);
    assert.equal(made.heard.stops[0].code, 4300);
  });

  test("it is renewed 60 s before its end, by the server's clock", async () => {
    const reasons = [];
    const now = new Date(time.now - 3_600_000);
    const end = (seconds) => new Date(now.getTime() + seconds * 1000).toISOString();
    const made = await live(
      { getToken: async ({ reason }) => `t${reasons.push(reason)}`, token: "old" },
      { now: now.toISOString(), tokenExpiresAt: end(3600), pingMs: 1e9 },
    );
    await time.advance(3_539_000);
    assert.deepEqual(reasons, []);
    await time.advance(2_000);
    assert.deepEqual(reasons, ["refresh"]);
    assert.deepEqual(platform.socket.sent, [{ type: "refresh", token: "t1" }]);
    platform.socket.says({ type: "refreshed", tokenExpiresAt: end(7200) });
    await time.advance(3_598_000);
    assert.deepEqual(reasons, ["refresh"]);
    await time.advance(2_000);
    assert.deepEqual(reasons, ["refresh", "refresh"]);
    assert.equal(platform.sockets.length, 1);
    made.close();
  });

  test("what is lost while a new token is asked for comes back with the old one, and is told the new", async () => {
    const answers = [];
    const end = new Date(time.now + 3_600_000).toISOString();
    const made = await live(
      { getToken: () => new Promise((resolve) => answers.push(resolve)), token: "old" },
      { tokenExpiresAt: end, pingMs: 1e9 },
    );
    await time.advance(3_541_000);
    assert.equal(answers.length, 1);
    platform.socket.end(1006);
    await time.advance(600);
    assert.deepEqual(platform.socket.options.protocols, ["room.v1", "bearer.old"]);
    answers[0]("new");
    await time.settle();
    platform.socket.opens();
    platform.socket.says(resumed(3, { tokenExpiresAt: end, pingMs: 1e9 }));
    assert.deepEqual(platform.socket.sent, [{ type: "refresh", token: "new" }]);
    assert.equal(answers.length, 1);
    assert.equal(platform.sockets.length, 2);
    made.close();
  });

  test("a token that comes in the background is told on the way back", async () => {
    let answer;
    const end = new Date(time.now + 3_600_000).toISOString();
    const made = await live(
      { getToken: () => new Promise((resolve) => (answer = resolve)), token: "old" },
      { tokenExpiresAt: end, pingMs: 1e9 },
    );
    await time.advance(3_541_000);
    platform.tell("background");
    answer("new");
    await time.advance(3_000);
    assert.deepEqual(platform.socket.sent, [{ type: "away" }]);
    platform.tell("foreground");
    platform.socket.says({ type: "pong", seq: 3, epoch: "e1", now: "" });
    assert.deepEqual(platform.socket.sent.slice(1), [{ type: "ping" }, { type: "refresh", token: "new" }]);
    made.close();
  });

  test("tokens that live for seconds are not renewed in a loop", async () => {
    let asked = 0;
    const end = () => new Date(time.now + 10_000).toISOString();
    const made = await live({ token: undefined, getToken: () => `t${asked++}` }, { tokenExpiresAt: end() });
    for (let second = 0; second < 60; second++) {
      const before = platform.socket.sent.length;
      await time.advance(1000);
      const frames = platform.socket.sent.slice(before);
      if (frames.some(({ type }) => type === "refresh")) {
        platform.socket.says({ type: "refreshed", tokenExpiresAt: end() });
      }
    }
    assert.ok(asked >= 8 && asked <= 20, `${asked}`);
    made.close();
  });

  test("a getToken that fails, or never answers, is asked again; late answers are nobody's", async () => {
    const answers = [];
    const getToken = () => new Promise((resolve, reject) => answers.push({ resolve, reject }));
    const made = await room({ token: undefined, getToken });
    answers[0].reject(new Error("no network"));
    await time.settle();
    assert.equal(made.state.status, "waiting");
    assert.equal(made.state.error.reason, "no network");
    await time.advance(600);
    await time.advance(31_000);
    assert.ok(answers.length >= 2);
    answers[1].resolve("late");
    await time.advance(21_000);
    assert.equal(platform.sockets.length, 0);
    answers[answers.length - 1].resolve("good");
    await time.settle();
    assert.equal(platform.sockets.length, 1);
    made.close();
  });

  test("what getToken brings must be a text: anything else is no token, and is asked for again", async () => {
    const brought = [undefined, "", 7, "good"];
    const made = await room({ token: undefined, getToken: () => brought.shift() });
    for (let turn = 0; turn < 40 && brought.length; turn++) await time.advance(1_000);
    assert.equal(platform.sockets.length, 1);
    assert.deepEqual(platform.socket.options.protocols, ["room.v1", "bearer.good"]);
    made.close();
  });

  test("a getToken that rejects with null or a text has failed, and is asked for again", async () => {
    const brought = [() => Promise.reject(null), () => Promise.reject("no network"), () => "good"];
    const made = await room({ token: undefined, getToken: () => brought.shift()() });
    await time.settle();
    assert.equal(made.state.status, "waiting");
    for (let turn = 0; turn < 40 && brought.length; turn++) await time.advance(1_000);
    assert.deepEqual(platform.socket.options.protocols, ["room.v1", "bearer.good"]);
    made.close();
  });

  test("no token and nobody to ask stops", async () => {
    const made = await room({ token: undefined });
    await time.settle();
    assert.equal(made.heard.stops[0].code, 4301);
  });
});

describe("resume", () => {
  test("since and epoch after every loss; without an epoch from the server, since alone", async () => {
    const made = await live({}, { epoch: undefined });
    platform.socket.says(joined(4, 2));
    platform.socket.end(1006);
    await time.advance(600);
    assert.equal(platform.socket.url.search, "?since=4");
    made.close();
  });

  test("a resumption keeps what was there: the room, everybody in it, and who one is", async () => {
    const made = await live();
    const { room, participants, self } = made.state;
    platform.socket.end(1006);
    await time.advance(600);
    platform.socket.opens();
    platform.socket.says(resumed(3, { self: undefined, epoch: undefined }));
    assert.equal(made.state.room, room);
    assert.deepEqual(made.state.participants, participants);
    assert.equal(made.state.participants[0], participants[0]);
    assert.equal(made.state.self, self);
    assert.equal(made.state.epoch, "e1");
    assert.deepEqual(made.heard.resets, []);
    made.close();
  });

  test("a doubled event is dropped, a gap is asked for", async () => {
    const made = await live();
    platform.socket.says(joined(4, 2));
    platform.socket.says(joined(4, 2));
    platform.socket.says(joined(7, 5));
    assert.deepEqual(platform.socket.sent, [{ type: "sync", since: 4, epoch: "e1" }]);
    for (const seq of [5, 6, 7, 7, 8]) platform.socket.says(joined(seq, seq - 2));
    assert.deepEqual(made.heard.events.map(({ seq }) => seq), [4, 5, 6, 7, 8]);
    assert.equal(platform.socket.sent.length, 1);
    await time.advance(10_000);
    assert.equal(platform.socket.sent.length, 1);
    made.close();
  });

  test("a ping that knows of more asks for it, again while nothing comes", async () => {
    const made = await live();
    platform.socket.says({ type: "ping", seq: 5, epoch: "e1", now: "" });
    await time.advance(5_100);
    assert.deepEqual(platform.socket.sent, Array(2).fill({ type: "sync", since: 3, epoch: "e1" }));
    made.close();
  });

  test("a snapshot in place of events is one change and one reset", async () => {
    const made = await live();
    platform.socket.end(1006);
    await time.advance(600);
    platform.socket.opens();
    made.heard.states.length = 0;
    platform.socket.says(welcome({ seq: 900, participants: [HOST] }));
    await time.settle();
    assert.deepEqual(made.heard.resets, [{ fromSeq: 3, seq: 900, epoch: "e1" }]);
    assert.equal(made.heard.states.length, 1);
    assert.deepEqual(made.state.participants, [HOST]);
    assert.deepEqual(made.heard.events, []);
    platform.socket.says(joined(901, 9));
    assert.deepEqual(made.heard.events.map(({ seq }) => seq), [901]);
    made.close();
  });

  test("the first snapshot, and one where nothing was skipped, are no reset", async () => {
    const made = await live();
    platform.socket.says(welcome());
    assert.deepEqual(made.heard.resets, []);
    made.close();
  });

  test("another epoch is a reset, even at a seq that was told already", async () => {
    const made = await live();
    platform.socket.says(welcome({ seq: 3, epoch: "e2" }));
    platform.socket.says(welcome({ seq: 2, epoch: "e2" }));
    assert.deepEqual(made.heard.resets, [
      { fromSeq: 3, seq: 3, epoch: "e2" },
      { fromSeq: 3, seq: 2, epoch: "e2" },
    ]);
    made.close();
  });

  test("an epoch that a ping tells is adopted", async () => {
    const made = await live();
    platform.socket.says({ type: "ping", seq: 3, epoch: "e2", now: "" });
    assert.equal(made.state.epoch, "e2");
    platform.socket.end(1006);
    await time.advance(600);
    assert.equal(platform.socket.url.search, "?since=3&epoch=e2");
    made.close();
  });

  test("a ping that contradicts what was told is answered by reading anew", async () => {
    const made = await live();
    platform.socket.says({ type: "ping", seq: 2, epoch: "e2", now: "" });
    await time.advance(600);
    assert.deepEqual(platform.socket.sent, [{ type: "sync" }]);
    assert.equal(made.state.epoch, "e1");
    made.close();
  });
});

describe("what is not known", () => {
  test("an event of another type is told, and the roster is read anew", async () => {
    const made = await live();
    platform.socket.says({ type: "participant_waved", roomId: "room_1", seq: 4, at: "", hand: "left" });
    platform.socket.says({ type: "participant_waved", roomId: "room_1", seq: 5, at: "", hand: "left" });
    assert.deepEqual(made.heard.events.map(({ type }) => type), ["participant_waved", "participant_waved"]);
    await time.advance(600);
    assert.deepEqual(platform.socket.sent, [{ type: "sync" }]);
    platform.socket.says(welcome({ seq: 5, participants: [guest(7)] }));
    assert.deepEqual(made.state.participants, [guest(7)]);
    assert.deepEqual(made.heard.resets, []);
    made.close();
  });

  test("an event of another type about somebody changes nobody until the roster is read", async () => {
    const made = await live();
    const before = made.state.participants;
    platform.socket.says(presence("participant_waved", 4, 1));
    assert.deepEqual(made.state.participants, before);
    await time.advance(600);
    assert.deepEqual(platform.socket.sent, [{ type: "sync" }]);
    made.close();
  });

  test("a member of another name is told, and makes one snapshot, not one each time", async () => {
    const made = await live();
    platform.socket.says(joined(4, 2, { mood: "happy" }));
    platform.socket.says(joined(5, 3, { mood: "happy" }));
    await time.advance(600);
    assert.equal(made.heard.events[0].mood, "happy");
    assert.equal(made.state.participantCount, 4);
    assert.deepEqual(platform.socket.sent, [{ type: "sync" }]);
    platform.socket.says(welcome({ seq: 5 }));
    platform.socket.says(joined(6, 4, { mood: "sad" }));
    await time.advance(600);
    assert.equal(platform.socket.sent.length, 1);
    made.close();
  });

  test("a snapshot that was asked for on a lost connection is asked for on the next", async () => {
    const made = await live();
    platform.socket.says({ type: "new", roomId: "room_1", seq: 4, at: "" });
    platform.socket.end(1006);
    await time.advance(600);
    platform.socket.opens();
    platform.socket.says(resumed(4));
    await time.advance(600);
    assert.deepEqual(platform.socket.sent, [{ type: "sync" }]);
    made.close();
  });

  test("nothing that the server says throws", async () => {
    const made = await live();
    const odd = [
      "", "null", "[]", "3", '"x"', "{", '{"type":5}', '{"type":"what"}', '{"type":"ping"}',
      '{"type":"participant_left","seq":4}', '{"type":"participant_joined","seq":5,"participant":"x"}',
      '{"type":"participant_away","seq":6,"participant":{"userId":"nobody"}}',
      '{"type":"refreshed"}', '{"type":"error"}', '{"type":"pong","seq":"x"}', '{"type":"room_ended","seq":7}',
    ];
    for (const text of odd) platform.socket.says(text);
    platform.socket.options.message(new ArrayBuffer(3));
    assert.equal(made.state.status, "live");
    assert.equal(made.state.seq, 7);
    made.close();
  });

  test("an error frame is told, and the connection stays", async () => {
    const made = await live();
    const errors = [];
    made.on("error", (frame) => errors.push(frame.code));
    platform.socket.says({ type: "error", code: "RATE_LIMITED", message: "…" });
    assert.deepEqual(errors, ["RATE_LIMITED"]);
    assert.equal(made.state.status, "live");
    made.close();
  });
});

describe("the roster", () => {
  test("events 1..n give the room at n", async () => {
    const made = await live({}, { seq: 0, participants: [], room: undefined });
    const about = { roomName: "R", hostName: "张经理", status: "active", createdAt: "x" };
    const log = [
      { type: "room_created", roomId: "room_1", seq: 1, at: "", room: about, participant: HOST },
      joined(2, 1),
      joined(3, 2),
      presence("participant_online", 4, 1),
      presence("participant_away", 5, 1, { leaveAt: "x" }),
      presence("participant_back", 6, 1),
      presence("participant_left", 7, 2, { reason: "left" }),
      joined(8, 2),
    ];
    const rosters = log.map((event) => {
      platform.socket.says(event);
      return made.state.participants.map(({ userId, connection }) => `${userId} ${connection}`).join(", ");
    });
    assert.deepEqual(rosters, [
      "user_001 online",
      "user_001 online, guest_1 none",
      "user_001 online, guest_1 none, guest_2 none",
      "user_001 online, guest_1 online, guest_2 none",
      "user_001 online, guest_1 away, guest_2 none",
      "user_001 online, guest_1 online, guest_2 none",
      "user_001 online, guest_1 online",
      "user_001 online, guest_1 online, guest_2 none",
    ]);
    assert.deepEqual(made.state.participants, [HOST, guest(1), guest(2, "none")]);
    await time.settle();
    assert.deepEqual(platform.socket.sent, [], "nothing in it was unknown");
    assert.deepEqual([made.state.participantCount, made.state.onlineCount], [3, 2]);
    platform.socket.says({
      type: "room_ended", roomId: "room_1", seq: 9, at: "", endedAt: "y", by: "user_001", reason: "ended",
    });
    assert.deepEqual(made.state.participants, []);
    assert.deepEqual(made.state.room, { ...about, status: "ended", endedAt: "y" });
    assert.deepEqual(made.heard.events.map(({ seq }) => seq), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    made.close();
  });

  test("what is told of somebody who is not there makes the roster be read anew", async () => {
    for (const type of ["participant_left", "participant_away"]) {
      const made = await live();
      platform.socket.says(presence(type, 4, 9));
      assert.deepEqual(made.state.participants, [HOST, guest(1)]);
      await time.advance(600);
      assert.deepEqual(platform.socket.sent, [{ type: "sync" }], type);
      made.close();
    }
  });

  test("a state never changes, and entries that did not change are the same", async () => {
    const made = await live();
    const before = made.state;
    platform.socket.says(presence("participant_away", 4, 1));
    const after = made.state;
    assert.notEqual(after, before);
    assert.equal(before.participants[1].connection, "online");
    assert.equal(after.participants[1].connection, "away");
    assert.equal(after.participants[0], before.participants[0]);
    platform.socket.says({ type: "ping", seq: 4, epoch: "e1", now: "" });
    assert.equal(made.state, after);
    platform.tell("network", false);
    assert.notEqual(made.state, after);
    assert.equal(made.state.participants, after.participants, "the same people are the same list");
    const { room, self, participants } = after;
    for (const value of [after, room, self, participants, participants[0]]) assert.ok(Object.isFrozen(value));
    made.close();
  });

  test("entries that did not change are the same after a snapshot, too", async () => {
    const made = await live({}, { participants: [HOST, guest(1), guest(2)] });
    const [host, first, second] = made.state.participants;
    const participants = [HOST, guest(2, "away"), guest(1), guest(3)];
    platform.socket.says(JSON.stringify(welcome({ seq: 9, participants })));
    const now = made.state.participants;
    assert.deepEqual(now, participants);
    assert.equal(now[0], host);
    assert.equal(now[2], first);
    assert.notEqual(now[1], second);
    assert.equal(second.connection, "online");
    assert.deepEqual([made.state.participantCount, made.state.onlineCount], [4, 3]);
    made.close();
  });

  test("a change is told once per turn, after all of its events", async () => {
    const made = await live();
    made.heard.states.length = 0;
    for (let seq = 4; seq < 40; seq++) platform.socket.says(joined(seq, seq));
    await time.settle();
    assert.equal(made.heard.states.length, 1);
    assert.equal(made.heard.states[0].seq, 39);
    platform.socket.says({ type: "ping", seq: 39, epoch: "e1", now: "" });
    await time.settle();
    assert.equal(made.heard.states.length, 1);
    made.close();
  });

  test("roster none: counts in place of names", async () => {
    const made = await live(
      { roster: "none" },
      { participants: undefined, participantCount: 900, onlineCount: 800 },
    );
    assert.equal(platform.socket.url.search, "?roster=none");
    platform.socket.says(joined(4, 2, { participantCount: 901, onlineCount: 800 }));
    const { participants, participantCount, onlineCount } = made.state;
    assert.deepEqual({ participants, participantCount, onlineCount }, {
      participants: [], participantCount: 901, onlineCount: 800,
    });
    platform.socket.end(1006);
    await time.advance(600);
    platform.socket.opens();
    platform.socket.says(resumed(4, { participantCount: 700, onlineCount: 600 }));
    assert.equal(made.state.participantCount, 700);
    assert.deepEqual(platform.socket.sent, []);
    made.close();
  });

  test("observe looks on", async () => {
    await room({ observe: true });
    assert.equal(platform.socket.url.search, "?observe=1");
  });
});

describe("silence and sleep", () => {
  test("1.5 pings of silence: a probe; 5 s without an answer: another connection", async () => {
    const made = await live();
    await time.advance(37_400);
    assert.deepEqual(platform.socket.sent, []);
    await time.advance(200);
    assert.deepEqual(platform.socket.sent, [{ type: "ping" }]);
    await time.advance(4_800);
    assert.ok(platform.socket.holds);
    await time.advance(800);
    assert.equal(platform.sockets.length, 2);
    assert.equal(platform.socket.url.search, "?since=3&epoch=e1");
    made.close();
  });

  test("any frame is a sign of life", async () => {
    const made = await live();
    await time.advance(37_600);
    platform.socket.says(joined(4, 2));
    await time.advance(30_000);
    assert.equal(platform.sockets.length, 1);
    assert.equal(platform.socket.sent.length, 1);
    made.close();
  });

  test("a timer that rings late probes first, and again", async () => {
    const made = await live();
    await time.sleep(3_600_000);
    assert.deepEqual(platform.socket.sent, [{ type: "ping" }]);
    assert.ok(platform.socket.holds);
    await time.sleep(3_600_000);
    assert.equal(platform.socket.sent.length, 2);
    assert.ok(platform.socket.holds);
    platform.socket.says({ type: "pong", seq: 3, epoch: "e1", now: "" });
    await time.advance(10_000);
    assert.equal(platform.sockets.length, 1);
    made.close();
  });

  test("an idle client wakes at most once per ping", async () => {
    const made = await live();
    time.wakes = 0;
    for (let n = 0; n < 40; n++) {
      await time.advance(25_000);
      platform.socket.says({ type: "ping", seq: 3, epoch: "e1", now: "" });
    }
    assert.ok(time.wakes <= 40, `${time.wakes}`);
    assert.deepEqual(platform.socket.sent, []);
    made.close();
  });

  test("a clock that is set back delays nothing", async () => {
    const made = await live({ random: () => 0.999 });
    platform.socket.end(1006);
    time.now -= 7_200_000;
    for (const timer of time.timers.values()) timer.at -= 7_200_000; // they count real time
    await time.advance(1_000);
    assert.equal(platform.sockets.length, 2);
    made.close();
  });

  test("retryAt is a time of the device's clock, also after that was set back", async () => {
    const made = await live({ random: () => 0.5 });
    time.now -= 7_200_000;
    for (const timer of time.timers.values()) timer.at -= 7_200_000;
    platform.socket.end(1006);
    assert.equal(made.state.status, "waiting");
    assert.equal(made.state.retryAt, Date.now() + 250);
    made.close();
  });

  test("a send that fails is a lost connection", async () => {
    const made = await live();
    platform.socket.fails = true;
    await time.advance(37_600);
    await time.advance(600);
    assert.equal(platform.sockets.length, 2);
    made.close();
  });
});

describe("the device", () => {
  test("offline: no attempts; online: within a second", async () => {
    const made = await live();
    platform.tell("network", false);
    assert.equal(made.state.status, "offline");
    await time.advance(600_000);
    assert.equal(platform.sockets.length, 1);
    platform.tell("network", true);
    await time.advance(1_001);
    assert.equal(platform.sockets.length, 2);
    made.close();
  });

  test("online brings a long wait forward", async () => {
    const made = await live({ random: () => 0.999 });
    for (let n = 0; n < 8; n++) {
      platform.socket.end(1006);
      await time.settle();
      if (n < 7) await time.advance(made.state.retryAt - time.now + 1);
    }
    assert.ok(made.state.retryAt - time.now > 10_000);
    platform.tell("network", true);
    assert.ok(made.state.retryAt - time.now <= 1000);
    made.close();
  });

  test("in the background: away at once, and nothing after it; back: a probe", async () => {
    const made = await live();
    platform.tell("background");
    assert.equal(made.state.status, "background");
    platform.socket.says({ type: "what", roomId: "room_1", seq: 4, at: "" });
    platform.socket.says({ type: "ping", seq: 9, epoch: "e1", now: "" });
    await time.advance(120_000);
    assert.deepEqual(platform.socket.sent, [{ type: "away" }]);
    platform.tell("foreground");
    assert.deepEqual(platform.socket.sent[1], { type: "ping" });
    platform.socket.says({ type: "pong", seq: 9, epoch: "e1", now: "" });
    assert.equal(made.state.status, "live");
    await time.advance(600);
    const types = platform.socket.sent.slice(2).map(({ type, since }) => [type, since]);
    assert.deepEqual(types.sort(), [["sync", undefined], ["sync", 4]]);
    made.close();
  });

  test("back, it is live once the probe is answered: nothing else proves it", async () => {
    const made = await live();
    platform.tell("background");
    platform.tell("foreground");
    platform.socket.says({ type: "ping", seq: 3, epoch: "e1", now: "" });
    assert.equal(made.state.status, "connecting");
    platform.socket.says({ type: "pong", seq: 3, epoch: "e1", now: "" });
    assert.equal(made.state.status, "live");
    await time.advance(6_000);
    assert.equal(platform.sockets.length, 1);
    made.close();
  });

  test("an end that is told in the background is one: 4010 stops", async () => {
    const made = await live();
    platform.tell("background");
    platform.socket.bye(4010);
    await time.settle();
    assert.equal(made.state.status, "stopped");
    assert.deepEqual(made.heard.stops, [{ code: 4010, reason: "reason 4010" }]);
    made.connect();
    await time.settle();
    assert.equal(platform.sockets.length, 2, "whoever asks again is not hidden any more");
    made.close();
  });

  test("offline before it connects: it waits for the network", async () => {
    platform.listen = (tell) => {
      platform.listeners.add(tell);
      tell("network", false);
      return () => platform.listeners.delete(tell);
    };
    const made = await room();
    await time.advance(60_000);
    assert.equal(made.state.status, "offline");
    assert.equal(platform.sockets.length, 0);
    platform.tell("network", true);
    await time.advance(1_001);
    assert.equal(platform.sockets.length, 1);
    made.close();
  });

  test("another network, or somebody who looks again: a live socket is probed, a hidden one is not", async () => {
    for (const news of [["network", true], ["poke"], ["foreground"]]) {
      platform = new FakePlatform();
      const made = await live();
      platform.tell(...news);
      assert.deepEqual(platform.socket.sent, [{ type: "ping" }], news[0]);
      await time.advance(5_600);
      assert.equal(platform.sockets.length, 2, "no answer: another connection");
      made.close();
      if (news[0] === "foreground") continue;
      platform = new FakePlatform();
      const hidden = await live();
      platform.tell("background");
      platform.tell(...news);
      assert.deepEqual(platform.socket.sent, [{ type: "away" }], news[0]);
      hidden.close();
    }
  });

  test("back, and the socket is dead without a word: 5 s", async () => {
    const made = await live();
    platform.tell("background");
    await time.advance(60_000);
    platform.tell("foreground");
    platform.socket.says(joined(4, 2)); // it had waited in a queue
    await time.advance(5_700);
    assert.equal(platform.sockets.length, 2);
    made.close();
  });

  test("back while Postgres is away: the refused probe is a sign of life, and it asks again", async () => {
    const made = await live();
    platform.tell("background");
    platform.tell("foreground");
    for (let n = 2; n < 8; n++) {
      await time.advance(4_200);
      platform.socket.says({ type: "error", code: "SERVICE_UNAVAILABLE", message: "…" });
      assert.equal(made.state.status, "connecting");
      await time.advance(5_100);
      assert.deepEqual(platform.socket.sent.slice(n), [{ type: "ping" }]);
    }
    platform.socket.says({ type: "pong", seq: 3, epoch: "e1", now: "" });
    assert.equal(made.state.status, "live");
    await time.advance(30_000);
    assert.equal(platform.sockets.length, 1);
    made.close();
  });

  test("no attempt while hidden; back connects at once", async () => {
    const made = await live();
    platform.tell("background");
    platform.socket.end(1000);
    await time.advance(600_000);
    assert.equal(platform.sockets.length, 1);
    assert.equal(made.state.status, "background");
    platform.tell("foreground");
    await time.settle();
    assert.equal(platform.sockets.length, 2);
    assert.equal(platform.socket.url.search, "?since=3&epoch=e1");
    made.close();
  });

  test("4009 in the background is a lost connection, told before or after coming back", async () => {
    for (const isLate of [false, true]) {
      platform = new FakePlatform();
      const made = await live();
      platform.tell("background");
      if (isLate) platform.tell("foreground");
      platform.socket.bye(4009);
      if (!isLate) platform.tell("foreground");
      await time.advance(600);
      assert.equal(platform.sockets.length, 2);
      assert.deepEqual(made.heard.stops, []);
      platform.socket.opens();
      platform.socket.says(resumed(3));
      platform.socket.bye(4009);
      assert.equal(made.heard.stops[0].code, 4009);
      made.close();
    }
  });

  test("keepInBackground: no away, and the connection goes on", async () => {
    const made = await live({ keepInBackground: true });
    platform.tell("background");
    assert.equal(made.state.status, "background");
    await time.advance(37_600);
    assert.deepEqual(platform.socket.sent, [{ type: "ping" }]);
    platform.socket.end(1006);
    await time.advance(600);
    assert.equal(platform.sockets.length, 2);
    made.close();
  });

  test("hidden while connecting: the socket is given up", async () => {
    const made = await room();
    platform.tell("background");
    assert.ok(platform.socket.wasClosed);
    await time.advance(60_000);
    assert.equal(platform.sockets.length, 1);
    platform.tell("foreground");
    await time.settle();
    assert.equal(platform.sockets.length, 2);
    made.close();
  });

  test("the page cache: it closes, and connects on the way back", async () => {
    const made = await live();
    platform.tell("suspend");
    assert.ok(platform.socket.wasClosed);
    await time.advance(60_000);
    platform.tell("foreground");
    await time.settle();
    assert.equal(platform.sockets.length, 2);
    made.close();
  });
});

describe("leaving and closing", () => {
  test("over the socket", async () => {
    const made = await live();
    const done = made.leave();
    assert.equal(made.leave(), done);
    assert.deepEqual(platform.socket.sent, [{ type: "leave" }]);
    platform.socket.bye(1000);
    await done;
    assert.deepEqual(made.heard.stops, [{ code: 1000, reason: "left" }]);
    await made.leave();
    assert.equal(time.timers.size, 0);
  });

  test("a close without bye proves no leave: guests go on by REST", async () => {
    const made = await live();
    platform.answers = async () => ({ status: 200, header: () => null, body: { success: true } });
    const done = made.leave();
    platform.socket.end(1000);
    await time.advance(600);
    await done;
    const { url, body } = platform.requests[0];
    assert.equal(url, "https://h.example/api/interview/guest/leave");
    assert.deepEqual(JSON.parse(body), { roomId: "room_1", guestId: "guest_1", guestToken: "t.o.k" });
    assert.deepEqual(made.heard.stops, [{ code: 1000, reason: "left" }]);
    assert.equal(platform.sockets.length, 1);
  });

  test("while a leave by REST is under way nothing connects, and what was connecting is given up", async () => {
    const made = await live();
    platform.socket.end(1006);
    await time.advance(600);
    assert.equal(platform.sockets.length, 2);
    let answer;
    platform.answers = () => new Promise((resolve) => (answer = resolve));
    const done = made.leave();
    assert.ok(platform.socket.wasClosed);
    platform.tell("network", false);
    platform.tell("network", true);
    await time.advance(5_000);
    assert.equal(platform.sockets.length, 2);
    answer({ status: 200, header: () => null, body: '{"success":true}' });
    await done;
    assert.equal(made.state.status, "stopped");
  });

  test("neither socket nor REST: at the next connect", async () => {
    const made = await live();
    platform.answers = () => Promise.reject(new Error("no network"));
    platform.socket.end(1006);
    const done = made.leave();
    await time.advance(10);
    assert.equal(platform.requests.length, 1);
    platform.socket.opens();
    platform.socket.says(resumed(3));
    assert.deepEqual(platform.socket.sent, [{ type: "leave" }]);
    platform.socket.bye(1000);
    await done;
  });

  test("a guest that was forgotten meanwhile leaves over the socket, too", async () => {
    const api = new Api({ base: "https://h.example", platform });
    const data = { guestId: "guest_1", guestToken: "g1", userName: "李明" };
    platform.answers = async () => ({ status: 200, header: () => null, body: { success: true, data } });
    await api.join({ roomId: "room_1", userName: "李明" });
    const made = await room({ api, token: undefined });
    platform.answers = () => Promise.reject(new Error("no network"));
    const done = made.leave();
    api.forget("room_1");
    await time.advance(10);
    platform.sockets[0].end(1006);
    platform.sockets[1].end(1006);
    platform.answers = async () => ({ status: 400, header: () => null, body: { success: false, code: "INVALID_PARAMS" } });
    await time.advance(1_000);
    platform.socket.opens();
    platform.socket.says(welcome());
    assert.deepEqual(platform.socket.sent, [{ type: "leave" }]);
    platform.socket.bye(1000);
    await done;
  });

  test("staff leave at the next connect", async () => {
    const made = await live({}, { self: { userId: "user_001", role: "host" } });
    platform.socket.end(1006);
    const done = made.leave();
    await time.advance(600);
    assert.equal(platform.requests.length, 0);
    platform.socket.opens();
    platform.socket.says(resumed(3, { self: { userId: "user_001", role: "host" } }));
    assert.deepEqual(platform.socket.sent, [{ type: "leave" }]);
    platform.socket.bye(1000);
    await done;
  });

  test("a room that ended meanwhile is left", async () => {
    const made = await live();
    const done = made.leave();
    platform.socket.bye(4010);
    await done;
    assert.equal(made.heard.stops[0].code, 4010);
  });

  test("a leave that cannot be done any more is rejected, and harms nobody who did not wait", async () => {
    const made = await live();
    const done = made.leave();
    platform.socket.bye(4006);
    await assert.rejects(done);
    const other = await live();
    const pending = other.leave();
    other.close();
    await assert.rejects(pending, /closed/);
    await assert.rejects(other.leave(), /closed/);
    const third = await live();
    third.leave(); // nobody waits for it
    third.close();
    await time.settle();
  });

  test("close leaves no timer, listener or socket, whatever was under way", async () => {
    const stages = [
      async () => room(),
      async () => live(),
      async () => {
        const made = await live();
        platform.socket.end(1006);
        return made;
      },
      async () => {
        const made = await live();
        platform.tell("background");
        return made;
      },
    ];
    for (const stage of stages) {
      platform = new FakePlatform();
      const made = await stage();
      const before = made.heard.states.length;
      made.close();
      made.close();
      assert.equal(time.timers.size, 0);
      assert.equal(platform.listeners.size, 0);
      assert.ok(platform.sockets.every((socket) => !socket.holds));
      assert.equal(made.state.status, "stopped");
      made.connect();
      platform.socket.says(welcome());
      platform.socket.end(1006);
      await time.advance(60_000);
      assert.equal(platform.sockets.length, 1);
      assert.equal(made.heard.stops.length, 0);
      assert.ok(made.heard.states.length <= before + 1);
      assert.equal(time.timers.size, 0);
    }
  });

  test("connect after a stop starts anew, with since", async () => {
    const made = await live();
    platform.socket.bye(4006);
    made.connect();
    await time.advance(600);
    assert.equal(platform.socket.url.search, "?since=3&epoch=e1");
    platform.socket.opens();
    platform.socket.says(resumed(3));
    assert.equal(made.state.status, "live");
    made.close();
  });
});

describe("listeners", () => {
  test("one that throws harms nobody else", async () => {
    const { error } = console;
    console.error = () => {};
    try {
      const made = await live();
      const heard = [];
      made.on("event", () => {
        throw new Error("of a listener");
      });
      made.on("event", (event) => heard.push(event.seq));
      platform.socket.says(joined(4, 2));
      platform.socket.says(joined(5, 3));
      assert.deepEqual(heard, [4, 5]);
      assert.equal(made.state.seq, 5);
      made.close();
    } finally {
      console.error = error;
    }
  });

  test("on returns its own remover; close in a listener is final", async () => {
    const made = await live();
    const heard = [];
    const listener = (event) => heard.push(event.seq);
    const off = made.on("event", listener);
    made.on("event", listener);
    off();
    off();
    made.on("event", () => made.close());
    platform.socket.says(joined(4, 2));
    platform.socket.says(joined(5, 3));
    assert.deepEqual(heard, [4]);
    assert.equal(time.timers.size, 0);
  });

  test("who was removed by an earlier one, or by its close, is told nothing more", async () => {
    const made = await live();
    const heard = [];
    made.on("event", () => off());
    const off = made.on("event", (event) => heard.push(event.seq));
    made.on("stopped", () => made.close());
    made.on("stopped", (end) => heard.push(end.code));
    platform.socket.says(joined(4, 2));
    platform.socket.bye(4010);
    assert.deepEqual(heard, []);
  });

  test("a platform whose listeners cannot be removed stops and closes all the same", async () => {
    const { error } = console;
    console.error = () => {};
    try {
      platform.listen = () => () => {
        throw new Error("of a platform");
      };
      const made = await live();
      platform.socket.bye(4010);
      assert.deepEqual(made.heard.stops.map(({ code }) => code), [4010]);
      made.connect();
      await time.settle();
      assert.equal(platform.sockets.length, 2);
      made.close();
      assert.ok(platform.socket.wasClosed);
    } finally {
      console.error = error;
    }
  });
});

describe("guests with an Api", () => {
  const answer = (data) => ({ status: 200, header: () => null, body: JSON.stringify({ success: true, data }) });
  let api;
  let joins;

  beforeEach(() => {
    joins = 0;
    platform.answers = async ({ url, body }) => {
      if (!url.endsWith("/guest/join")) return answer({});
      const { roomId, userName, identity } = JSON.parse(body);
      joins++;
      return answer({ guestId: "guest_1", guestToken: `g${joins}`, roomId, userName, identity });
    };
    api = new Api({ base: "https://h.example", platform, token: "staff" });
  });

  test("their token is that of the room, renewed by a return", async () => {
    await api.join({ roomId: "room_1", userName: "李明", identity: "求职者" });
    const made = new Room({ api, roomId: "room_1" });
    made.connect();
    await time.settle();
    assert.deepEqual(platform.socket.options.protocols[1], "bearer.g1");
    platform.socket.opens();
    platform.socket.says(welcome());
    platform.socket.bye(4300);
    await time.advance(10);
    const { guestToken, userName, identity } = JSON.parse(platform.requests[1].body);
    assert.deepEqual([guestToken, userName, identity], ["g1", "李明", "求职者"]);
    assert.deepEqual(platform.socket.options.protocols[1], "bearer.g2");
    made.close();
  });

  test("a return that is refused stops with what it means", async () => {
    for (const [code, stop] of [["FORBIDDEN", 4005], ["ROOM_ENDED", 4010], ["ROOM_NOT_FOUND", 4004]]) {
      platform = new FakePlatform();
      const mine = new Api({ base: "https://h.example", platform });
      platform.answers = async () => answer({ guestId: "guest_1", guestToken: "g1", userName: "李明" });
      await mine.join({ roomId: "room_1", userName: "李明" });
      const made = await live({ api: mine, token: undefined });
      platform.answers = async () => ({ status: 403, header: () => null, body: { success: false, code, message: "…" } });
      platform.socket.bye(4300);
      await time.advance(10);
      assert.equal(made.heard.stops[0].code, stop);
    }
  });

  test("staff use their own token, and an observer always does", async () => {
    const made = await live({ api, token: undefined });
    assert.deepEqual(platform.socket.options.protocols[1], "bearer.staff");
    made.close();
    await api.join({ roomId: "room_1", userName: "李明" });
    await live({ api, token: undefined, observe: true });
    assert.deepEqual(platform.socket.options.protocols[1], "bearer.staff");
  });

  test("leaving before any connection goes by REST", async () => {
    await api.join({ roomId: "room_1", userName: "李明" });
    const made = new Room({ api, roomId: "room_1" });
    await made.leave();
    assert.equal(made.state.status, "stopped");
    assert.equal(platform.sockets.length, 0);
    assert.equal(time.timers.size, 0);
  });
});

describe("InterviewWatch", () => {
  test("follows an interview's log", async () => {
    const api = new Api({ base: "https://h.example", platform });
    const watch = new InterviewWatch({ api, interviewId: "c1", key: "a-key-of-16-chars" });
    const events = [];
    watch.on("event", (event) => events.push(event.seq));
    watch.connect();
    await time.settle();
    assert.equal(platform.socket.url.href, "wss://h.example/api/open/interviews/c1/live");
    assert.deepEqual(platform.socket.options.protocols, ["room.v1", "key.a-key-of-16-chars"]);
    platform.socket.opens();
    const greeting = { type: "welcome", interviewId: "c1", seq: 1, epoch: "e", resumed: false, pingMs: 25000 };
    platform.socket.says({ ...greeting, interview: { id: "c1", status: "IN_PROGRESS", currentIndex: 0 } });
    platform.socket.says({
      type: "interview_updated", interviewId: "c1", seq: 2, at: "", status: "COMPLETED", currentIndex: 3,
      answeredCount: 3, totalQuestions: 3, totalScore: 80, grade: "B",
    });
    assert.deepEqual(events, [2]);
    assert.deepEqual(watch.state.interview, {
      id: "c1", status: "COMPLETED", currentIndex: 3, answeredCount: 3, totalQuestions: 3, totalScore: 80, grade: "B",
    });
    platform.socket.end(1006);
    await time.advance(600);
    assert.equal(platform.socket.url.search, "?since=2&epoch=e");
    watch.close();
    assert.equal(time.timers.size, 0);
  });
});

test("Node without a WebSocket: the error says what to pass", () => {
  if (typeof WebSocket !== "undefined") return;
  assert.throws(
    () => new Room({ base: "https://h.example", roomId: "r", token: "t" }),
    /platform: node\(\{ WebSocket \}\).*`ws`/,
  );
  assert.ok(new Api({ base: "https://h.example" }));
  assert.throws(() => new Api({ base: "h.example", platform: node() }), TypeError);
});
