// Every listing of docs/mini-program.md, run in the stand-in for WeChat against a real node.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { WeChat } from "./wx.mjs";

const { url } = JSON.parse(process.env.ABOUT);
const read = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const guide = read("docs/mini-program.md");
const slowness = Number(process.env.SLOWNESS || 1); // times a second of a quiet machine
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(holds, what, seconds = 10) {
  const end = Date.now() + seconds * 1000 * slowness;
  while (!holds()) {
    if (Date.now() > end) assert.fail(`never came true: ${what}`);
    await wait(20);
  }
}

/** The files that the guide prints, by path. */
function listings() {
  const files = {};
  for (const [, path, text] of guide.matchAll(/^```(?:js|json|html) (\S+)\n([\s\S]*?)^```/gm)) {
    assert.ok(!(path in files), `${path} stands twice in the guide`);
    files[path] = text;
  }
  return files;
}

const ZEGO = `
export class ZegoExpressEngine {
  constructor(appId, server) { wx.zego = this; this.appId = appId; this.calls = []; this.on_ = {}; }
  on(name, act) { this.on_[name] = act; }
  loginRoom(...about) { this.calls.push(["login", ...about]); return Promise.resolve(true); }
  logoutRoom(roomId) { this.calls.push(["logout", roomId]); }
  renewToken(token) { this.calls.push(["renew", token]); }
}`;

const files = listings();
const program = {
  ...files,
  "room.js": read("coordinator/client/room.js"),
  "config.js": files["config.js"].replace("https://interview.example.com", url),
  "zego-express-engine-miniprogram": ZEGO,
};

/** A phone with the program of the guide installed. */
function phone(loginCode) {
  const weChat = new WeChat();
  weChat.loginCode = loginCode;
  return launch(weChat);
}

const pages = [];
after(() => pages.forEach((page) => page.room && page.room.close())); // what is live keeps Node running

/** The program starts, with what the phone has stored. */
function launch(weChat) {
  const { app, load } = weChat.run(program, "app.js");
  for (const page of JSON.parse(files["app.json"]).pages) load(`${page}.js`);
  const open = (path, query) => {
    const page = weChat.openPage(`${path}.js`, query);
    pages.push(page);
    return page;
  };
  return { weChat, app, open };
}

/** As JSON: what the program made is of another realm. */
const same = (found, wanted) => assert.equal(JSON.stringify(found), JSON.stringify(wanted));

const someone = () => Math.random().toString(36).slice(2);
const complaints = ({ weChat }) => weChat.shown.filter(({ icon }) => icon === "none").map(({ title }) => title);

test("the guide's pages are those of its app.json, and each has both of its files", () => {
  const { pages } = JSON.parse(files["app.json"]);
  const found = Object.keys(files).filter((path) => path.startsWith("pages/"));
  assert.deepEqual(found.sort(), pages.flatMap((page) => [`${page}.js`, `${page}.wxml`]).sort());
});

test("what the templates bind is there", () => {
  const host = phone("x");
  for (const [path, options] of Object.entries(host.weChat.pages)) {
    const template = files[path.replace(/\.js$/, ".wxml")];
    for (const [, name] of template.matchAll(/\bbind\w+="(\w+)"/g)) {
      assert.equal(typeof options[name], "function", `${path}: ${name}`);
    }
    for (const [, expression] of template.matchAll(/\{\{!?([a-zA-Z]\w*)/g)) {
      assert.ok(expression === "item" || expression in options.data, `${path}: ${expression}`);
    }
  }
});

let who;
let host;
let hostPage;
let roomId;

before(async () => {
  who = `host_${someone()}`;
  host = phone(`${who}.1`);
  const home = host.open("pages/home/home");
  home.onRoomName({ detail: { value: "前端工程师一面" } });
  home.onHostName({ detail: { value: "张经理" } });
  await home.onCreate();
  same(complaints(host), []);
  const { url: next } = host.weChat.shown.find((shown) => shown.url);
  roomId = new URL(next, "http://x").searchParams.get("roomId");
  assert.ok(`roomId=${roomId}`.length <= 32);
  hostPage = host.open("pages/interview/host/host", { roomId });
  await until(() => hostPage.data.status === "live", "the host is live");
});

test("the host has a live room, a code and a card to share", async () => {
  assert.equal(hostPage.data.roomName, "前端工程师一面");
  same(hostPage.data.people.map(({ userName }) => userName), ["张经理"]);
  await hostPage.onQrcode();
  same(complaints(host), []);
  assert.match(hostPage.data.qrcode, /\/uploads\/qrcode\/.+\.(png|jpg)$/);
  assert.equal(hostPage.onShareAppMessage().path, `/pages/interview/guest/guest?roomId=${roomId}`);
});

test("a phone number is bound by a code, and not without one", async () => {
  const home = host.open("pages/home/home");
  await home.onPhone({ detail: { errMsg: "getPhoneNumber:fail user deny" } });
  assert.equal(home.data.phone, "");
  await home.onPhone({ detail: { code: `${who}.2` } });
  same(complaints(host), []);
  assert.match(home.data.phone, /^1\d{10}$/);
});

test("a guest scans the code, joins, talks, hides for a minute's work, and leaves", async () => {
  const guest = phone("none");
  const page = guest.open("pages/interview/guest/guest", { scene: encodeURIComponent(`roomId=${roomId}`) });
  await until(() => page.data.roomName, "the room's name");
  page.onName({ detail: { value: "李明" } });
  await page.onJoin();
  same(complaints(guest), []);
  await until(() => page.data.status === "live" && page.data.people.length === 2, "both see each other");
  await until(() => hostPage.data.people.some(({ connection, role }) => role === "guest" && connection === "online"), "host");

  await page.onVideo();
  same(complaints(guest), []);
  const { zego } = guest.weChat.wx;
  const [, room, token, who] = zego.calls[0];
  assert.equal(room, roomId);
  assert.match(token, /^04/);
  assert.equal(who.userName, "李明");
  zego.on_.tokenWillExpire();
  await until(() => zego.calls.some(([call]) => call === "renew"), "the token is renewed");

  guest.weChat.hide();
  await until(() => hostPage.data.people.some(({ connection }) => connection === "away"), "away");
  assert.equal(page.data.status, "background");
  guest.weChat.show();
  await until(() => page.data.status === "live", "back");

  await page.onLeave();
  assert.equal(page.data.over, "您已离开");
  same(zego.calls[zego.calls.length - 1], ["logout", roomId]);
  await until(() => hostPage.data.people.length === 1, "the host sees it");
  page.onUnload();
  assert.equal(guest.weChat.listening, 0);
});

test("a guest whose program was ended by the system is the same guest", async () => {
  const guest = phone("none");
  const page = guest.open("pages/interview/guest/guest", { roomId });
  await until(() => page.data.roomName, "the room's name");
  page.onName({ detail: { value: "王芳" } });
  await page.onJoin();
  await until(() => page.data.status === "live", "live");
  const { userId } = page.data.people.find(({ userName }) => userName === "王芳");
  page.onUnload();

  const again = launch(guest.weChat).open("pages/interview/guest/guest", { roomId });
  await until(() => again.data.status === "live", "live again");
  same(again.data.people.filter(({ role }) => role === "guest").map((one) => one.userId), [userId]);

  hostPage.onRemove({ currentTarget: { dataset: { id: userId } } });
  await until(() => again.data.over === "您已被移出房间", "removed");
});

test("pages that are left before they are there leave nothing behind, and two taps join once", async () => {
  const guest = phone("none");
  const page = guest.open("pages/interview/guest/guest", { roomId });
  await until(() => page.data.roomName, "the room's name");
  page.onName({ detail: { value: "孙丽" } });
  await Promise.all([page.onJoin(), page.onJoin()]);
  await until(() => page.data.status === "live", "live");
  same(page.data.people.filter(({ userName }) => userName === "孙丽").map(({ words }) => words), ["在线"]);
  assert.equal(guest.weChat.open.length, 1);
  page.onUnload();

  const again = launch(guest.weChat).open("pages/interview/guest/guest", { roomId });
  again.onUnload(); // still asking for the room
  const other = phone(`${who}.3`);
  other.open("pages/interview/host/host", { roomId }).onUnload(); // still signing in
  await wait(1000);
  for (const { weChat } of [guest, other]) {
    assert.equal(weChat.open.length, 0);
    assert.equal(weChat.listening, 0);
  }
});

test("the host talks, ends, and everybody is told", async () => {
  const guest = phone("none");
  const page = guest.open("pages/interview/guest/guest", { roomId });
  await until(() => page.data.roomName, "the room's name");
  page.onName({ detail: { value: "赵" } });
  await page.onJoin();
  await until(() => page.data.status === "live", "live");
  await hostPage.onVideo();
  same(complaints(host), []);
  assert.equal(host.weChat.wx.zego.calls[0][3].userName, "张经理");
  hostPage.onEnd();
  await until(() => page.data.over === "面试已结束" && hostPage.data.ended, "ended");
  hostPage.onUnload();
  page.onUnload();
  assert.equal(host.weChat.listening + guest.weChat.listening, 0);
  const late = phone("none").open("pages/interview/guest/guest", { roomId });
  await until(() => late.data.over === "面试已结束", "who comes too late is told");
});
