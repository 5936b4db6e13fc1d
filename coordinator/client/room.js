/**
 * The coordinator's client; room.d.ts documents it.
 *
 * RoomModel: what the log says. Link: when to connect, probe, stop.
 * Room: carries out what a Link decides. Api: REST and its tokens.
 */

const NEVER = Infinity;
const ANSWER_MS = 10000; // for a REST answer, a welcome
const PROBE_MS = 5000; // for an answer over the socket
const CLOSE_MS = 400; // that a closing socket holds up the next
const TOKEN_MS = 30000; // for getToken
const REFRESH_MS = 60000; // before a token ends
const LATE_MS = 2000; // a timer this late: the device slept
const SHORT_MS = 10000; // a life that proves nothing
const LEAST_MS = 500; // back-off
const MOST_MS = 20000;
const STOPS = { ROOM_NOT_FOUND: 4004, FORBIDDEN: 4005, ROOM_ENDED: 4010, NO_TOKEN: 4301 };
const GONE = [1000, 4004, 4005, 4009, 4010]; // nobody is there to leave

class Model {
  constructor() {
    this.seq = this.version = 0; // 0: nothing is known
    this.epoch = this.self = null;
  }

  welcome(frame) {
    this.version++;
    this.self = frame.self || this.self;
    this.epoch = frame.epoch || this.epoch;
    if (frame.resumed) return;
    this.seq = frame.seq;
    this.replace(frame);
  }

  adopt(epoch) {
    if (!epoch || epoch === this.epoch) return;
    this.epoch = epoch;
    this.version++;
  }

  /** False where the event holds what this version does not know. */
  apply(event) {
    this.version++;
    this.seq = event.seq;
    return this.take(event);
  }
}

const MEMBERS =
  "type roomId seq at room participant participantCount onlineCount leaveAt reason endedAt by " +
  "userId userName role identity joinedAt connection";
const CONNECTION = {
  participant_online: "online",
  participant_back: "online",
  participant_away: "away",
};

/** A room: applying events 1..n gives it as of n. */
export class RoomModel extends Model {
  constructor({ roster } = {}) {
    super();
    this.isCounted = roster === "none"; // the server counts, and names nobody
    this.names = new Set(MEMBERS.split(" "));
    this.replace({});
  }

  replace({ room, participants = [] }) {
    const { people } = this;
    this.room = room || null;
    this.people = new Map(); // by userId, in order of joining
    this.list = null;
    this.total = this.online = 0;
    for (const person of participants) {
      const old = people.get(person.userId);
      const isSame = old && JSON.stringify(old) === JSON.stringify(person);
      this.put(person.userId, isSame ? old : person);
    }
  }

  put(userId, person /* or null: out */) {
    const old = this.people.get(userId);
    this.list = null;
    this.total += !!person - !!old;
    this.online += isOnline(person) - isOnline(old);
    if (person) this.people.set(userId, Object.freeze(person));
    else this.people.delete(userId);
  }

  welcome(frame) {
    super.welcome(frame);
    this.count(frame);
  }

  take(event) {
    const { type, participant, room } = event;
    const isNews = this.isNews(event) | this.isNews(participant);
    this.count(event);
    if (type === "room_ended") {
      this.replace({ room: { ...this.room, status: "ended", endedAt: event.endedAt } });
      return !isNews;
    }
    const isJoin = type === "room_created" || type === "participant_joined";
    const connection = CONNECTION[type];
    if (!participant || !(isJoin || connection || type === "participant_left")) return false;
    if (room) this.room = room;
    if (this.isCounted) return !isNews;
    const { userId } = participant;
    const old = this.people.get(userId);
    if (!connection) this.put(userId, null);
    if (isJoin) this.put(userId, participant);
    else if (connection && old) this.put(userId, { ...old, connection });
    return (isJoin || !!old) && !isNews;
  }

  count({ participantCount, onlineCount }) {
    if (!this.isCounted || participantCount === undefined) return;
    this.total = participantCount;
    this.online = onlineCount;
  }

  isNews(members) {
    let isNews = false;
    for (const name in members) {
      if (!this.names.has(name)) isNews = !!this.names.add(name);
    }
    return isNews;
  }

  view() {
    const { seq, epoch, room, total, online, self } = this;
    const list = this.list || Object.freeze(Array.from(this.people.values()));
    this.list = list;
    const counts = { participantCount: total, onlineCount: online };
    return { seq, epoch, room, participants: list, ...counts, self };
  }
}

function isOnline(person) {
  return !!person && person.connection === "online";
}

export class InterviewModel extends Model {
  replace({ interview }) {
    this.interview = interview || null;
  }

  take({ type, interviewId, seq, at, ...members }) {
    const isKnown = type === "interview_created" || type === "interview_updated";
    if (isKnown) this.interview = { ...this.interview, ...members };
    return isKnown;
  }

  view() {
    const { seq, epoch, interview = null, self } = this;
    return { seq, epoch, interview, self };
  }
}

// -- the state of a connection

/**
 * Decides, and does nothing. Inputs are the methods that take `{…}`; their `id` is that of a socket
 * or a question. A socket is `opening`, `open`, `live` or `closing`; an older one is nobody's.
 */
export class Link {
  constructor(model, { random = Math.random, keepInBackground } = {}) {
    Object.assign(this, { model, random, keepInBackground });
    this.due = {}; // when which method is called, in this order
    this.cancel("gone attempt timeout probe silent ask tokenFailed resync read");
    this.isWanted = this.isHidden = this.isSuspended = this.isStale = false;
    this.isOffline = this.isUntold = false;
    this.socket = this.token = this.leaving = this.end = this.error = null;
    this.reason = "connect"; // why the next token is asked for
    this.ids = this.asking = this.tries = this.refusals = 0;
    this.renewedAt = this.offset = this.goal = 0;
    this.expiresAt = NEVER;
    this.pingMs = 25000;
  }

  handle(input, now) {
    const { id, type } = input;
    const { socket, asking } = this;
    this.now = now;
    this.effects = [];
    const isOfSocket = socket && id === socket.id && (type === "closed" || !this.isClosing());
    if (id === undefined || id === asking || isOfSocket) this[type](input);
    return this.effects;
  }

  next() {
    let next = NEVER;
    for (const name in this.due) if (this.due[name] < next) next = this.due[name];
    return next;
  }

  tick() {
    for (const name in this.due) {
      const at = this.due[name];
      if (at > this.now) continue;
      this.due[name] = NEVER;
      this[name]({ isLate: this.now - at > LATE_MS });
    }
  }

  get status() {
    if (this.end) return "stopped";
    if (!this.isWanted) return "idle";
    if (this.isHidden || this.isSuspended) return "background";
    if (this.isOffline) return "offline";
    if (this.isLive()) return this.socket.isReturning ? "connecting" : "live";
    return this.due.attempt < NEVER ? "waiting" : "connecting";
  }

  isLive() {
    return !!this.socket && this.socket.phase === "live";
  }

  isClosing() {
    return !!this.socket && this.socket.phase === "closing";
  }

  isMute() {
    return this.isHidden && !this.keepInBackground; // any frame would say that we are back
  }

  mayConnect() {
    return this.isWanted && !this.isOffline && !this.isSuspended && !this.isMute();
  }

  does(...effect) {
    this.effects.push(effect);
  }

  send(frame) {
    this.does("send", frame);
  }

  tell(name, about) {
    this.does("tell", name, about);
  }

  later(name, ms) {
    this.due[name] = this.now + ms;
  }

  cancel(names) {
    for (const name of names.split(" ")) this.due[name] = NEVER;
  }

  connect() {
    if (!this.isWanted) this.tries = this.refusals = 0;
    if (!this.token) this.reason = "connect";
    this.isWanted = true;
    this.end = null;
    this.attempt();
  }

  attempt() {
    const { due, model } = this;
    this.cancel("attempt");
    if (!this.mayConnect() || this.leaving === "busy") return;
    if (this.socket) {
      if (this.isClosing()) due.attempt = due.gone;
      return;
    }
    if (this.leaving === "rest") return this.leaveByRest();
    if (this.expiresAt <= this.now) this.refuse("expired");
    if (!this.token) return this.ask();
    const id = ++this.ids;
    this.isUntold = false;
    this.socket = { id, phase: "opening", liveAt: 0, isAway: false, isReturning: false };
    this.later("timeout", ANSWER_MS);
    const from = model.version ? { since: model.seq, epoch: model.epoch } : {};
    this.does("open", { id, token: this.token, ...from });
  }

  opened({ frame }) {
    if (this.socket.phase !== "opening") return; // told twice
    this.socket.phase = "open";
    this.later("timeout", ANSWER_MS);
    if (frame) this.send(frame);
  }

  closed({ code = 1006, reason }) {
    if (!this.isClosing()) this.lost(code, reason);
    this.gone();
  }

  gone() {
    const isHeldUp = this.due.attempt === this.due.gone && this.due.gone < NEVER;
    this.socket = null;
    this.cancel("gone");
    if (isHeldUp) this.attempt();
  }

  drop(isDead) {
    this.cancel("timeout probe silent ask resync read");
    if (!this.socket || this.isClosing()) return;
    this.socket.phase = "closing";
    this.later("gone", CLOSE_MS);
    this.does("hangUp", isDead);
  }

  timeout() {
    this.drop(true);
    this.lost(1006, "no answer");
  }

  lost(code, reason = "connection lost", { type, afterMs } = {}) {
    const { liveAt, isAway } = this.socket;
    this.drop();
    if (liveAt && this.now - liveAt > SHORT_MS) this.tries = 0;
    this.error = { code, reason };
    if (this.leaving && (code === 4009 || (code === 1000 && type))) return this.left();
    const family = code === 4009 && isAway ? 0 : Math.floor(code / 100);
    if (family === 40) return this.stop(code, reason);
    if (family === 41) return this.retry(this.backOff(++this.tries + 1));
    if (family === 42) return this.retry(this.random() * (afterMs >= 0 ? afterMs : 1000));
    if (family !== 43) return this.again(liveAt);
    if (++this.refusals > 1) return this.stop(code, reason);
    this.refuse(code === 4300 ? "expired" : "invalid");
    this.attempt();
  }

  again(liveAt) {
    const n = this.tries++;
    this.retry(n > (liveAt ? 5 : 0) ? this.backOff(n) : this.random() * LEAST_MS);
  }

  backOff(n) {
    return LEAST_MS + this.random() * (Math.min(MOST_MS, LEAST_MS * Math.pow(2, n)) - LEAST_MS);
  }

  retry(ms) {
    if (this.leaving) this.leaving = this.leavesBy;
    this.later("attempt", this.mayConnect() ? ms : NEVER);
  }

  stop(code, reason) {
    this.drop();
    this.cancel("attempt tokenFailed");
    this.isWanted = this.isHidden = this.isSuspended = this.isOffline = false;
    this.asking = 0;
    this.leaving = null;
    this.end = this.error = { code, reason };
    this.does("finish", this.end);
  }

  refuse(reason) {
    this.token = null;
    this.expiresAt = NEVER;
    this.reason = reason;
  }

  ask() {
    if (this.asking) return;
    this.asking = ++this.ids;
    this.later("tokenFailed", TOKEN_MS);
    this.does("ask", { id: this.asking, reason: this.reason });
  }

  renewed({ token }) {
    this.asking = 0;
    this.cancel("tokenFailed");
    this.token = token;
    this.renewedAt = this.now;
    this.expiresAt = NEVER;
    this.isUntold = true;
    this.refresh();
    this.attempt();
  }

  refresh() {
    if (!this.isUntold || !this.isLive() || this.isMute()) return;
    this.isUntold = false;
    this.send({ type: "refresh", token: this.token });
  }

  tokenFailed({ code, reason = "no token" }) {
    this.asking = 0;
    this.cancel("tokenFailed");
    if (this.token) {
      if (this.isLive() && !STOPS[code]) this.later("ask", ANSWER_MS);
      this.attempt();
    } else if (STOPS[code]) {
      this.stop(code === "NO_TOKEN" && this.reason === "expired" ? 4300 : STOPS[code], reason);
    } else {
      this.error = { code, reason };
      this.again();
    }
  }

  expires(at) {
    if (at) this.expiresAt = Date.parse(at) - this.offset;
    const early = this.expiresAt - REFRESH_MS;
    const half = (this.renewedAt + this.expiresAt) / 2; // of a life shorter than that
    this.due.ask = early > this.renewedAt ? early : half || NEVER;
  }

  frame({ frame }) {
    const { socket } = this;
    const type = frame && frame.type;
    const isError = type === "error";
    if (this.isLive() && !this.isMute()) {
      this.later("probe", isError ? PROBE_MS : this.pingMs * 1.5); // Postgres may be away
      if (!socket.isReturning || isError) this.cancel("silent"); // any frame is a sign of life
    }
    if (type === "welcome") this.welcome(frame);
    else if (type === "bye") this.lost(frame.code, frame.reason, frame);
    else if (isError) this.tell("error", frame);
    else if (!this.isLive()) return;
    else if (type === "ping" || type === "pong") this.heard(frame);
    else if (type === "refreshed") this.expires(frame.tokenExpiresAt);
    else if (type && Number.isInteger(frame.seq)) this.event(frame);
  }

  welcome(frame) {
    const { model } = this;
    const { seq, epoch, resumed } = frame;
    const fromSeq = model.seq;
    const isOther = epoch && model.epoch && epoch !== model.epoch;
    const isSkip = model.version && !resumed && (seq !== fromSeq || isOther);
    model.welcome(frame);
    if (!resumed) this.isStale = false;
    this.goal = 0;
    this.cancel("resync read");
    if (!this.isLive()) this.begin(frame);
    if (isSkip) this.tell("reset", { fromSeq, seq, epoch: model.epoch });
    if (seq > model.seq) this.misses(seq);
    if (this.isStale) this.readAnew();
  }

  begin({ pingMs, now, tokenExpiresAt }) {
    this.socket.phase = "live";
    this.socket.liveAt = this.now;
    this.cancel("timeout");
    this.refusals = 0;
    this.error = null;
    this.reason = "refresh";
    if (pingMs > 0) this.pingMs = pingMs;
    this.later("probe", this.pingMs * 1.5);
    this.offset = Date.parse(now) - this.now || 0;
    this.expires(tokenExpiresAt);
    this.refresh();
    if (this.leaving) this.sayLeave();
    else if (this.isMute()) this.sayAway();
  }

  heard({ type, seq, epoch }) {
    const { model, socket } = this;
    if (type === "pong" && socket.isReturning && !this.isMute()) {
      socket.isReturning = socket.isAway = false;
      this.cancel("silent");
      this.expires();
      this.refresh();
      if (this.isStale) this.readAnew();
    }
    if (seq < model.seq) return this.readAnew(); // it contradicts what was told
    model.adopt(epoch);
    if (seq > model.seq) this.misses(seq);
  }

  event(event) {
    const { model } = this;
    if (event.seq <= model.seq) return; // told already
    if (event.seq > model.seq + 1) return this.misses(event.seq);
    const isUnderstood = model.apply(event);
    if (model.seq >= this.goal) this.cancel("resync");
    this.tell("event", event);
    if (!isUnderstood) this.readAnew();
  }

  misses(seq) {
    this.goal = Math.max(this.goal, seq);
    if (this.due.resync < NEVER || this.isMute()) return;
    this.later("resync", PROBE_MS);
    this.send({ type: "sync", since: this.model.seq, epoch: this.model.epoch || undefined });
  }

  resync() {
    this.misses(this.goal);
  }

  readAnew() {
    this.isStale = true;
    const may = this.isLive() && !this.isMute() && this.due.read === NEVER;
    if (may) this.later("read", this.random() * LEAST_MS);
  }

  read() {
    this.send({ type: "sync" });
  }

  probe() {
    this.send({ type: "ping" });
    this.later("silent", PROBE_MS);
  }

  silent({ isLate }) {
    if (isLate) this.probe();
    else this.timeout();
  }

  network({ online }) {
    const { isOffline } = this;
    this.isOffline = !online;
    if (!online) {
      this.drop(true);
      this.cancel("attempt");
    } else if (this.isLive()) {
      if (!this.isMute()) this.probe();
    } else if (isOffline || this.due.attempt < NEVER) {
      this.tries = 0;
      this.retry(this.random() * 1000);
    }
  }

  looked({ online }) {
    if (online === this.isOffline) this.network({ online });
  }

  background() {
    this.isHidden = true;
    if (!this.isMute()) return;
    this.cancel("attempt");
    if (this.isLive()) this.sayAway();
    else this.drop();
  }

  sayAway() {
    const { self } = this.model;
    this.socket.isAway = true;
    this.cancel("probe silent ask resync read");
    if (self && self.role !== "observer") this.send({ type: "away" });
  }

  foreground() {
    if (!this.isHidden && !this.isSuspended) return this.poke();
    this.isHidden = this.isSuspended = false;
    this.tries = 0;
    if (this.leaving === "socket") this.leaving = this.leavesBy;
    if (!this.isLive()) return this.attempt();
    this.socket.isReturning = this.socket.isAway;
    this.probe();
  }

  suspend() {
    this.isSuspended = true;
    this.cancel("attempt");
    this.drop();
  }

  poke() {
    this.tick();
    if (this.isLive() && !this.isMute()) this.probe();
  }

  leave({ by }) {
    this.leaving = this.leavesBy = by;
    this.isWanted = true;
    this.end = null;
    if (this.isLive()) return this.sayLeave();
    if (by === "socket") return this.attempt();
    this.drop();
    this.cancel("attempt tokenFailed");
    this.asking = 0;
    this.leaveByRest();
  }

  sayLeave() {
    this.send({ type: "leave" });
    this.later("timeout", PROBE_MS);
  }

  leaveByRest() {
    this.leaving = "busy";
    this.does("leaveByRest");
  }

  left() {
    if (this.leaving) this.stop(1000, "left");
  }

  leaveFailed({ status }) {
    if (!this.leaving) return;
    this.leaving = "socket";
    if (status >= 400 && status < 429) this.leavesBy = "socket";
    this.attempt();
  }
}

// -- platforms

export function browser() {
  return {
    origin: location.origin,
    request: fetched,
    open: (options) => opened(WebSocket, options),
    listen: (tell) => {
      const look = () => tell("looked", navigator.onLine !== false);
      const on = (name, online) => () => tell(name, online);
      const all = [
        [window, "online", on("network", true)],
        [window, "offline", on("network", false)],
        [window, "pagehide", on("suspend")],
        [window, "pageshow", look],
        [document, "visibilitychange", look],
        [window, "pageshow", on("foreground")],
        [document, "visibilitychange", on("poke")],
      ];
      const each = (verb) => {
        for (const [target, ...about] of all) target[verb + "EventListener"](...about);
      };
      each("add");
      look();
      return () => each("remove");
    },
  };
}

export function node(options = {}) {
  const found = options.WebSocket || (typeof WebSocket === "undefined" ? null : WebSocket);
  return {
    request: fetched,
    open: found && ((about) => opened(found, about)),
    listen: () => () => {},
  };
}

function fetched({ url, ...options }) {
  const mayAbort = typeof AbortSignal !== "undefined" && AbortSignal.timeout;
  if (mayAbort) options.signal = AbortSignal.timeout(ANSWER_MS + PROBE_MS);
  return fetch(url, options).then((response) =>
    response.text().then((body) => ({
      status: response.status,
      header: (name) => response.headers.get(name),
      body,
    })),
  );
}

function opened(WebSocket, { url, protocols, ...on }) {
  const socket = new WebSocket(url, protocols);
  socket.onopen = on.opened;
  socket.onmessage = ({ data }) => on.message(data);
  socket.onclose = ({ code, reason }) => on.closed(code, reason);
  socket.onerror = ({ message }) => on.closed(undefined, message);
  return {
    send: (text) => socket.send(text),
    close: (isDead) => {
      socket.close(1000);
      if (isDead && socket.terminate) socket.terminate();
    },
  };
}

export function wechat(wx) {
  return {
    authByFrame: true,
    request: ({ method, url, headers, body }) =>
      new Promise((resolve, fail) => {
        const success = ({ statusCode, data, header = {} }) =>
          resolve({
            status: statusCode,
            header: (name) => header[name] || header[name.toLowerCase()],
            body: data,
          });
        const timeout = ANSWER_MS + PROBE_MS;
        wx.request({ method, url, header: headers, data: body, timeout, success, fail });
      }),
    open: ({ url, ...on }) => {
      const fail = ({ errMsg } = {}) => on.closed(undefined, errMsg);
      const task = wx.connectSocket({ url, timeout: ANSWER_MS, fail });
      if (!task) return null;
      let isOver;
      const close = () => {
        isOver = true;
        task.close({ code: 1000, fail: () => {} });
      };
      task.onOpen(() => (isOver ? harmless(close) : on.opened())); // WeChat closes no socket before
      task.onMessage(({ data }) => on.message(data));
      task.onClose(({ code, reason } = {}) => on.closed(code, reason));
      task.onError(fail);
      return {
        send: (data) => task.send({ data, fail }),
        close,
      };
    },
    listen: (tell) => {
      const success = ({ networkType }) => tell("looked", networkType !== "none");
      const look = () => wx.getNetworkType && wx.getNetworkType({ success });
      const all = {
        AppHide: () => tell("background"),
        AppShow: () => {
          look();
          tell("foreground");
        },
        NetworkStatusChange: ({ isConnected }) => tell("network", isConnected),
      };
      const each = (verb) => {
        for (const name in all) if (wx[verb + name]) wx[verb + name](all[name]);
      };
      each("on");
      look();
      return () => each("off");
    },
  };
}

function detected() {
  if (typeof WebSocket !== "undefined" && typeof document !== "undefined") return browser();
  return typeof wx !== "undefined" && wx.connectSocket ? wechat(wx) : node();
}

// -- REST calls

export class ApiError extends Error {
  constructor(code, message, about) {
    super(message);
    Object.assign(this, { name: "ApiError", code, status: 0 }, about);
  }
}

export class Api {
  constructor({ base, platform, token, storage } = {}) {
    this.platform = platform || detected();
    const url = String(base || this.platform.origin).replace(/\/+$/, "");
    if (!/^https?:/.test(url)) throw new TypeError("base must be an http(s) address, not " + url);
    this.base = url.replace(/\/api$/, "");
    this.storage = storage && kept(storage);
    this.memory = {};
    if (token) this.token = token;
  }

  get token() {
    return this.recall("staff");
  }

  set token(token) {
    this.keep("staff", token);
  }

  guest(roomId) {
    const guest = this.recall("guest:" + roomId);
    return guest && guest.guestToken ? guest : null;
  }

  forget(roomId) {
    this.keep("guest:" + roomId, null);
  }

  login(code) {
    return this.post("/wechat/login", { code }, null).then((data) => {
      this.token = data.token;
      return data;
    });
  }

  getPhone(code) {
    return this.post("/wechat/get-phone", { code });
  }

  profile(profile) {
    return this.post("/wechat/profile", profile);
  }

  qrcode(options) {
    return this.post("/wechat/generate-qrcode", options);
  }

  createRoom(room) {
    return this.post("/interview/create-room", room);
  }

  room(roomId) {
    return this.call("GET", roomPath(roomId));
  }

  rooms(query) {
    return this.call("GET", "/interview/rooms", { query, token: this.token });
  }

  endRoom(roomId) {
    return this.post(roomPath(roomId) + "/end");
  }

  events(roomId, query) {
    const token = (this.guest(roomId) || {}).guestToken || this.token;
    return this.call("GET", roomPath(roomId) + "/events", { query, token });
  }

  remove(roomId, userId) {
    return this.post(`${roomPath(roomId)}/participants/${encodeURIComponent(userId)}/remove`);
  }

  join({ roomId, userName, identity }) {
    const name = "guest:" + roomId;
    const guest = { joinKey: randomKey(), ...this.recall(name) };
    const { guestToken, joinKey } = guest;
    this.keep(name, guest); // a token may have ended
    const body = { roomId, userName, identity, guestToken, joinKey };
    return this.post("/interview/guest/join", body, null).then((data) => {
      const { guestId, guestToken, userName, identity } = data;
      this.keep(name, { guestId, guestToken, userName, identity });
      return data;
    });
  }

  leave(roomId) {
    const { guestId, guestToken } = this.guest(roomId) || {};
    return this.post("/interview/guest/leave", { roomId, guestId, guestToken }, null);
  }

  zegoToken(request) {
    const guest = this.guest(request.roomId) || {};
    const token = guest.guestId === request.userId ? guest.guestToken : this.token;
    return this.post("/zego/generate-token", request, token);
  }

  post(path, body, token = this.token) {
    return this.call("POST", path, { body, token });
  }

  call(method, path, { body, query, token } = {}) {
    const headers = {};
    if (body) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = "Bearer " + token;
    const url = this.base + "/api" + path + queryOf(query);
    const request = { method, url, headers, body: body && JSON.stringify(body) };
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(noAnswer("TIMEOUT")), ANSWER_MS);
      this.platform
        .request(request)
        .then(read, ({ errMsg }) => {
          throw noAnswer(/timeout/.test(errMsg) ? "TIMEOUT" : "NETWORK");
        })
        .then(resolve, reject)
        .then(() => clearTimeout(timer));
    });
  }

  keep(name, value) {
    this.memory[name] = value;
    if (this.storage) this.storage(value ? "set" : "remove", this.keyOf(name), JSON.stringify(value));
  }

  recall(name) {
    if (!this.memory[name] && this.storage) {
      this.memory[name] = parsed(this.storage("get", this.keyOf(name)));
    }
    return this.memory[name] || null;
  }

  keyOf(name) {
    return `coordinator:${this.base}:${name}`;
  }
}

function read({ status, header, body }) {
  const answer = (typeof body === "string" ? parsed(body) : body) || {};
  if (answer.success === true) return answer.data;
  if (status < 400) throw noAnswer("NETWORK"); // somebody else answered
  const { code, message, error, requestId } = answer;
  const otherwise = status > 500 ? "SERVICE_UNAVAILABLE" : "INTERNAL_ERROR"; // a proxy's answer
  const retryAfter = parseFloat(header("Retry-After")) || undefined;
  throw new ApiError(code || otherwise, message || error || "请求失败", { status, retryAfter, requestId });
}

function noAnswer(code) {
  return new ApiError(code, code === "TIMEOUT" ? "请求超时" : "网络不可用");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    return null;
  }
}

function roomPath(roomId) {
  return "/interview/room/" + encodeURIComponent(roomId);
}

function queryOf(query) {
  const parts = [];
  for (const name in query) {
    if (query[name] != null) parts.push(name + "=" + encodeURIComponent(query[name]));
  }
  return parts.length ? "?" + parts.join("&") : "";
}

function kept(storage) {
  const kind = storage.getStorageSync ? "StorageSync" : storage.getItem ? "Item" : "";
  return (verb, ...about) => harmless(() => storage[verb + kind](...about));
}

/** What others do wrong is theirs. */
function harmless(act) {
  try {
    return act();
  } catch (error) {
    if (typeof console !== "undefined") console.error(error);
  }
}

function randomKey() {
  const bytes = new Uint8Array(32).map(() => Math.random() * 256);
  if (typeof crypto !== "undefined" && crypto.getRandomValues) crypto.getRandomValues(bytes);
  return Array.from(bytes, (byte) => (byte & 31).toString(32)).join("");
}

// -- the live connections

/** One socket, one timer, and the listeners. */
class Live {
  constructor(options, model) {
    const { api, base, platform } = options;
    this.api = api || new Api({ base, platform });
    this.platform = platform || this.api.platform;
    if (!this.platform.open) {
      throw new Error("no WebSocket (Node < 22): pass platform: node({ WebSocket }) with that of `ws`");
    }
    this.options = options;
    this.model = model;
    this.link = new Link(model, options);
    this.lastNow = this.skew = 0;
    this.listeners = {};
    this.inputs = [];
    this.timerAt = NEVER;
    this.isClosed = this.isBusy = false;
  }

  get state() {
    const { link, model, current, isClosed } = this;
    const status = isClosed ? "stopped" : link.status;
    const retryAt = status === "waiting" ? link.due.attempt - this.skew : null;
    const error = status === "live" ? null : link.error;
    const isSame = current && current.status === status && current.retryAt === retryAt;
    if (isSame && current.error === error && this.version === model.version) return current;
    this.version = model.version;
    this.current = Object.freeze({ status, ...model.view(), retryAt, error });
    Object.values(this.current).forEach(Object.freeze);
    return this.current;
  }

  on(name, listener) {
    const all = this.listeners[name] || new Set();
    const entry = { listener };
    this.listeners[name] = all.add(entry);
    return () => all.delete(entry);
  }

  connect() {
    if (this.isClosed) return;
    this.listen();
    this.feed({ type: "connect" });
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.unlisten();
    this.hangUp();
    for (const name in this.listeners) this.listeners[name].clear();
  }

  listen() {
    if (this.ends) return;
    this.ends = this.platform.listen((type, online) => this.feed({ type, online }));
  }

  unlisten() {
    if (this.ends) harmless(this.ends);
    this.ends = null;
  }

  feed(input) {
    this.inputs.push(input);
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.inputs.length) {
      harmless(() => this.link.handle(this.inputs.shift(), this.clock()));
      for (const [name, ...about] of this.link.effects) {
        if (this.isClosed) return;
        this[name](...about);
      }
    }
    this.isBusy = false;
    if (this.isClosed) return;
    this.wind();
    Promise.resolve().then(() => this.notice());
  }

  /** One timer, for what is due first; it may ring early. */
  wind() {
    const at = this.link.next();
    if (this.timerAt <= at && at - this.timerAt < 1000) return;
    clearTimeout(this.timer);
    this.timerAt = at;
    if (at === NEVER) return;
    const ring = () => {
      this.timerAt = NEVER;
      this.feed({ type: "tick" });
    };
    this.timer = setTimeout(ring, Math.min(Math.max(at - this.clock(), 0), 2e9));
  }

  /** Never goes back. */
  clock() {
    const now = Date.now();
    this.skew += Math.max(0, this.lastNow - now);
    this.lastNow = now;
    return now + this.skew;
  }

  notice() {
    if (this.isClosed || this.state === this.told) return;
    this.told = this.state;
    this.tell("change", this.told);
  }

  tell(name, about) {
    const all = this.listeners[name] || [];
    for (const entry of [...all]) if (all.has(entry)) harmless(() => entry.listener(about));
  }

  open({ id, token, since, epoch }) {
    const { key, roster, observe } = this.options;
    const { api, platform } = this;
    const query = { since, epoch, roster: roster === "none" ? roster : null, observe: observe ? 1 : null };
    // What fits into no subprotocol is said in the first frame.
    const isFirst = platform.authByFrame || !/^[\w.~+-]+$/.test(token);
    const auth = isFirst && { type: "auth", [key ? "key" : "token"]: token };
    const closed = (code, reason) => this.feed({ type: "closed", id, code, reason });
    this.used = token;
    try {
      this.socket = platform.open({
        url: api.base.replace(/^http/, "ws") + "/api" + this.path + queryOf(query),
        protocols: isFirst ? [] : ["room.v1", (key ? "key." : "bearer.") + token],
        opened: () => this.feed({ type: "opened", id, frame: auth }),
        message: (text) => this.feed({ type: "frame", id, frame: parsed(text) }),
        closed,
      });
    } catch (error) {
      closed(undefined, error.message);
    }
  }

  send(frame) {
    const { id } = this.link.socket || {};
    try {
      this.socket.send(JSON.stringify(frame));
    } catch (error) {
      this.feed({ type: "closed", id, reason: error.message });
    }
  }

  hangUp(isDead) {
    const { socket } = this;
    this.socket = null;
    if (socket) harmless(() => socket.close(isDead));
  }

  ask({ id, reason }) {
    new Promise((resolve) => resolve(this.findToken(reason)))
      .then((token) => {
        const isToken = token && typeof token === "string";
        return { type: isToken ? "renewed" : "tokenFailed", token };
      })
      .catch((error) => {
        const { code, message } = error || {};
        return { type: "tokenFailed", code, reason: message };
      })
      .then((input) => this.feed({ id, ...input }));
  }

  findToken(reason) {
    const { token = this.api.token, getToken, key } = this.options;
    const own = key || token;
    const isNew = own !== this.own || reason === "connect";
    this.own = own;
    if (own && isNew) return own;
    if (!getToken) throw new ApiError("NO_TOKEN", "no token, no getToken");
    return getToken({ reason });
  }

  finish(end) {
    this.unlisten();
    this.tell("stopped", end);
  }
}

export class Room extends Live {
  constructor(options) {
    super(options, new RoomModel(options));
    this.roomId = options.roomId;
    this.path = roomPath(this.roomId) + "/live";
  }

  leave() {
    const { end } = this.link;
    if (end && GONE.includes(end.code)) return Promise.resolve();
    if (this.isClosed) return Promise.reject(new Error("closed"));
    if (!this.leaving) {
      this.leaving = new Promise((resolve, reject) => {
        this.settle = (error) => (error ? reject(error) : resolve());
      });
      this.leaving.catch(() => {}); // nobody has to wait for it
      this.listen();
      this.feed({ type: "leave", by: this.guest() ? "rest" : "socket" });
    }
    return this.leaving;
  }

  close() {
    super.close();
    if (this.settle) this.settle(new Error("closed"));
  }

  finish(end) {
    const { settle } = this;
    this.settle = this.leaving = null;
    if (settle) settle(!GONE.includes(end.code) && new Error(end.reason));
    super.finish(end);
  }

  guest() {
    const { token, observe } = this.options;
    const { self } = this.model;
    const kept = !token && !observe && this.api.guest(this.roomId);
    const isGuest = self && self.role === "guest";
    return kept || (isGuest && { guestId: self.userId, guestToken: this.used });
  }

  leaveByRest() {
    const { guestId, guestToken } = this.guest() || {};
    const body = { roomId: this.roomId, guestId, guestToken };
    this.api.post("/interview/guest/leave", body, null).then(
      () => this.feed({ type: "left" }),
      ({ status }) => this.feed({ type: status === 404 ? "left" : "leaveFailed", status }),
    );
  }

  findToken(reason) {
    const { guestToken, userName, identity } = this.guest() || {};
    if (!userName) return super.findToken(reason);
    if (guestToken !== this.used) return guestToken;
    const { roomId } = this;
    return this.api.join({ roomId, userName, identity }).then((joined) => joined.guestToken);
  }
}

export class InterviewWatch extends Live {
  constructor(options) {
    super(options, new InterviewModel());
    this.path = `/open/interviews/${encodeURIComponent(options.interviewId)}/live`;
  }
}
