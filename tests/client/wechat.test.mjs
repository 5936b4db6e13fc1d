// The client in the stand-in for WeChat's runtime, against a real node.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, describe, test } from "node:test";

import { WeChat } from "./wx.mjs";

const { url, hostToken } = JSON.parse(process.env.ABOUT);
const source = readFileSync(new URL("../../coordinator/client/room.js", import.meta.url), "utf8");
const slowness = Number(process.env.SLOWNESS || 1); // times a second of a quiet machine
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(holds, what, seconds = 15) {
  const end = Date.now() + seconds * 1000 * slowness;
  while (!holds()) {
    if (Date.now() > end) assert.fail(`never came true: ${what}`);
    await wait(20);
  }
}

async function call(method, path, body, token) {
  const response = await fetch(`${url}/api${path}`, {
    method,
    body: body && JSON.stringify(body),
    headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
  return (await response.json()).data;
}

async function newRoom() {
  const roomId = `room_${Math.random().toString(36).slice(2)}`;
  await call("POST", "/interview/create-room", { roomId, roomName: "R", hostName: "张经理" }, hostToken);
  return roomId;
}

const log = (roomId) => call("GET", `/interview/room/${roomId}/events?after=0`, null, hostToken).then(({ events }) => events);

const rooms = [];
after(() => rooms.forEach((room) => room.close())); // what is live keeps Node running

/** A guest in a mini-program: in the room, and live. */
async function guest(options, roomOptions) {
  const weChat = new WeChat(options);
  const { exports: client } = weChat.run({ "room.js": source }, "room.js");
  const roomId = await newRoom();
  const api = new client.Api({ base: url, platform: client.wechat(weChat.wx), storage: weChat.wx });
  const { guestId } = await api.join({ roomId, userName: "李明" });
  const room = new client.Room({ api, roomId, ...roomOptions });
  rooms.push(room);
  const seqs = [];
  room.on("event", ({ seq }) => seqs.push(seq));
  room.connect();
  await until(() => room.state.status === "live", "live");
  return { weChat, client, roomId, api, guestId, room, seqs, first: room.state.seq };
}

async function sees(roomId, type, count = 1) {
  const end = Date.now() + 15_000 * slowness;
  for (;;) {
    const found = (await log(roomId)).filter((event) => event.type === type);
    if (found.length >= count) return found;
    if (Date.now() > end) assert.fail(`no ${type} in the log`);
    await wait(50);
  }
}

async function isWhole({ room, seqs, first, roomId }) {
  const events = await log(roomId);
  await until(() => room.state.seq === events.length, "everything was told");
  assert.deepEqual(seqs, events.map(({ seq }) => seq).filter((seq) => seq > first));
}

describe("in WeChat", { concurrency: true }, () => {
  test("a short look elsewhere: away, back, the same socket, nobody has left", async () => {
    const it = await guest();
    it.weChat.hide();
    assert.equal(it.room.state.status, "background");
    await sees(it.roomId, "participant_away");
    await wait(500);
    it.weChat.show();
    await until(() => it.room.state.status === "live", "live again");
    await sees(it.roomId, "participant_back");
    assert.equal(it.weChat.tasks.length, 1);
    await isWhole(it);
    it.room.close();
    assert.equal(it.weChat.listening, 0);
    await until(() => it.weChat.open.length === 0, "no socket is left");
  });

  for (const tellsCloses of [true, false]) {
    test(`cut after 5 s in the background, ${tellsCloses ? "told" : "and never told"}`, async () => {
      const it = await guest({ tellsCloses });
      it.weChat.hide();
      await wait(5_500);
      const other = await call("POST", "/interview/guest/join", { roomId: it.roomId, userName: "王" });
      await wait(500);
      assert.equal(it.weChat.refused, 0);
      it.weChat.show();
      await until(() => it.room.state.status === "live", "live again");
      await until(
        () => it.room.state.participants.some(({ userId }) => userId === other.guestId),
        "what happened meanwhile is heard",
      );
      await isWhole(it);
      const types = (await log(it.roomId)).map(({ type }) => type);
      assert.ok(!types.includes("participant_left"));
      assert.equal(it.weChat.most, 1);
      it.room.close();
    });
  }

  test("keepInBackground: not away while its socket stands", async () => {
    const it = await guest({ cutMs: 60_000 }, { keepInBackground: true });
    it.weChat.hide();
    await wait(1_000);
    const types = (await log(it.roomId)).map(({ type }) => type);
    assert.ok(!types.includes("participant_away"));
    it.weChat.show();
    it.room.close();
  });

  test("another network: offline, then back within a second or so, with what was missed", async () => {
    const it = await guest();
    it.weChat.network(false);
    assert.equal(it.room.state.status, "offline");
    await call("POST", "/interview/guest/join", { roomId: it.roomId, userName: "王" });
    const tasks = it.weChat.tasks.length;
    await wait(1_500);
    assert.equal(it.weChat.tasks.length, tasks);
    it.weChat.network(true);
    await until(() => it.room.state.status === "live", "live again", 5);
    await isWhole(it);
    it.room.close();
  });

  test("a network that came back in the background without a word is there on return", async () => {
    const it = await guest();
    it.weChat.network(false);
    assert.equal(it.room.state.status, "offline");
    it.weChat.hide();
    it.weChat.isConnected = true; // and its change is never told
    it.weChat.show();
    await until(() => it.room.state.status === "live", "live again");
    await isWhole(it);
    it.room.close();
  });

  test("many cuts never make two sockets", async () => {
    const it = await guest({ cutMs: 30, tellsCloses: false });
    for (let n = 0; n < 6; n++) {
      it.weChat.hide();
      await wait(60);
      it.weChat.show();
      it.weChat.network(false);
      it.weChat.network(true);
      await until(() => it.room.state.status === "live", "live again");
    }
    assert.equal(it.weChat.most, 1);
    await isWhole(it);
    it.room.close();
  });

  test("a join whose answer was lost is the same join again; a restarted program is the same guest", async () => {
    const weChat = new WeChat();
    const roomId = await newRoom();
    const start = () => {
      const { exports: client } = weChat.run({ "room.js": source }, "room.js");
      return new client.Api({ base: url, platform: client.wechat(weChat.wx), storage: weChat.wx });
    };
    let isLost = true;
    const keys = [];
    weChat.loses = ({ data }) => {
      keys.push(JSON.parse(data).joinKey);
      return isLost;
    };
    await assert.rejects(start().join({ roomId, userName: "李明" }), { code: "NETWORK" });
    isLost = false;
    const joined = await start().join({ roomId, userName: "李明" });
    assert.match(keys[0], /^[A-Za-z0-9_-]{16,64}$/);
    assert.equal(keys[1], keys[0]);
    const again = await start().join({ roomId, userName: "李明" });
    assert.equal(again.guestId, joined.guestId);
    assert.notEqual(keys[2], keys[0]);
  });

  test("leaving over the socket, and by REST where there is none", async () => {
    const it = await guest();
    await it.room.leave();
    assert.equal(it.room.state.error.code, 1000);
    await sees(it.roomId, "participant_left");
    const away = await guest();
    away.weChat.open[0].cut(true);
    await away.room.leave();
    await sees(away.roomId, "participant_left");
    assert.equal(away.weChat.listening, 0);
  });
});
