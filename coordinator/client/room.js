/**
 * The coordinator's client: rooms that are followed live, and the documented REST calls.
 *
 * From the inside out, and each part knows only those above it:
 *   RoomModel, InterviewModel   what the log says: applying events 1..n gives the state at n
 *   Link                        when to connect, resume, probe, renew, give up; no socket, no timer
 *   browser, wechat, node       sockets, requests and the news of each platform
 *   Api                         the REST calls, and the tokens that they bring
 *   Room, InterviewWatch        carry out what a Link decides, and tell their listeners
 *
 * One file, no dependencies, ES2018; importing it touches no global.
 */

const NEVER = Infinity;
const ANSWER_MS = 10000; // a REST answer, a socket that opens, a welcome after it
const PROBE_MS = 5000; // an answer to what is asked over the socket
const CLOSE_MS = 500; // how long a socket that is being closed holds up the next one
const TOKEN_MS = 30000; // an answer of getToken
const REFRESH_MS = 60000; // before a token ends
const LATE_MS = 2000; // a timer this late means that the device slept
const SHORT_MS = 10000; // a connection that ended sooner proves nothing about the server
const READ_MS = 1000; // between two snapshots that are asked for
const AUTH_MS = 2000; // a welcome later than this: the header with the token was lost on its way
const [FIRST_MS, LEAST_MS, MOST_MS] = [500, 500, 20000]; // back-off

// ---------------------------------------------------------------------------- what the log says

const MEMBERS =
  "type roomId seq at room participant participantCount onlineCount leaveAt reason endedAt by " +
  "userId userName role identity joinedAt connection";
const CONNECTION = {
  participant_online: "online",
  participant_back: "online",
  participant_away: "away",
};

/** A room as its log tells it. `apply` events 1..n to a new one, and `view()` is the room at n. */
export class RoomModel {
  constructor({ roster = "full" } = {}) {
    this.seq = 0;
    this.epoch = null;
    this.known = false; // true once a snapshot or an event was taken in
    this.version = 0; // another number after each change
    this.counted = roster === "none"; // the server counts, and names nobody
    this.room = this.self = this.list = null;
    this.people = new Map(); // userId -> participant, in order of joining
    this.total = this.online = 0;
    this.names = new Set(MEMBERS.split(" "));
  }

  /** A `welcome`: where it is no resumption, its snapshot replaces everything. */
  welcome(frame) {
    this.version++;
    this.known = true;
    this.self = frame.self || this.self;
    if (frame.epoch) this.epoch = frame.epoch;
    if (!frame.resumed) {
      this.seq = frame.seq;
      this.room = frame.room || null;
      this.people = new Map();
      this.list = null;
      this.total = this.online = 0;
      for (const person of frame.participants || []) this.put(person);
    }
    this.count(frame);
  }

  adopt(epoch) {
    if (epoch && epoch !== this.epoch) {
      this.epoch = epoch;
      this.version++;
    }
  }

  /** Takes the next event in; false where it holds what this version does not know. */
  apply(event) {
    this.version++;
    this.known = true;
    this.seq = event.seq;
    const isUnderstood = this.take(event) && !this.isNews(event) && !this.isNews(event.participant);
    this.count(event);
    return isUnderstood;
  }

  take(event) {
    const person = event.participant;
    switch (event.type) {
      case "room_created":
        this.room = event.room;
      // falls through: the host is in it
      case "participant_joined":
        if (!person) return false;
        this.drop(person.userId);
        return this.put(person);
      case "participant_left":
        return !!person && this.drop(person.userId);
      case "room_ended":
        this.room = Object.assign({}, this.room, { status: "ended", endedAt: event.endedAt });
        this.people = new Map();
        this.list = null;
        this.total = this.online = 0;
        return true;
    }
    const connection = CONNECTION[event.type];
    return !!connection && !!person && this.move(person.userId, connection);
  }

  put(person) {
    if (this.counted) return true;
    this.people.set(person.userId, Object.freeze(person));
    this.total++;
    if (person.connection === "online") this.online++;
    this.list = null;
    return true;
  }

  drop(userId) {
    const person = this.people.get(userId);
    if (!person) return this.counted;
    this.people.delete(userId);
    this.total--;
    if (person.connection === "online") this.online--;
    this.list = null;
    return true;
  }

  move(userId, connection) {
    const person = this.people.get(userId);
    if (!person) return this.counted;
    this.online += (connection === "online") - (person.connection === "online");
    this.people.set(userId, Object.freeze(Object.assign({}, person, { connection })));
    this.list = null;
    return true;
  }

  count(frame) {
    if (!this.counted) return;
    if (frame.participantCount >= 0) this.total = frame.participantCount;
    if (frame.onlineCount >= 0) this.online = frame.onlineCount;
  }

  /** True the first time that a member of this name is met: a newer server has more to say. */
  isNews(members) {
    let isNews = false;
    for (const name in members) {
      if (!this.names.has(name)) isNews = !!this.names.add(name);
    }
    return isNews;
  }

  view() {
    if (!this.list) this.list = Object.freeze(Array.from(this.people.values()));
    return {
      seq: this.seq,
      epoch: this.epoch,
      room: this.room,
      participants: this.list,
      participantCount: this.total,
      onlineCount: this.online,
      self: this.self,
    };
  }
}

/** An interview as its log tells it; the same methods. */
export class InterviewModel {
  constructor() {
    this.seq = this.version = 0;
    this.epoch = this.interview = this.self = null;
    this.known = false;
  }

  welcome(frame) {
    this.version++;
    this.known = true;
    this.self = frame.self || this.self;
    if (frame.epoch) this.epoch = frame.epoch;
    if (!frame.resumed) {
      this.seq = frame.seq;
      this.interview = frame.interview || null;
    }
  }

  apply(event) {
    this.version++;
    this.known = true;
    this.seq = event.seq;
    if (!/^interview_(created|updated)$/.test(event.type)) return false;
    const changed = Object.assign({}, this.interview, event);
    for (const name of ["type", "interviewId", "seq", "at"]) delete changed[name];
    this.interview = changed;
    return true;
  }

  view() {
    return { seq: this.seq, epoch: this.epoch, interview: this.interview, self: this.self };
  }
}
InterviewModel.prototype.adopt = RoomModel.prototype.adopt;

// ------------------------------------------------------------------- the state of a connection

/**
 * Decides, and does nothing: `handle(input, now)` returns the effects to carry out, in order, and
 * `next()` is the moment (on the same clock, ms) at which it wants a `tick`.
 *
 * Inputs `{type, …}`: connect {online} · opened {id, authMs?} · frame {id, frame} · closed {id,
 *   code, reason} · failed {id, reason} · renewed {id, token, isFresh} · tokenFailed {id, code?,
 *   reason, isFinal?} · network {online} · background · foreground · suspend · poke · leave {rest} ·
 *   left · leaveFailed {isFinal} · tick
 * Effects `{do, …}`: open {id, token, since?, epoch?} · send {frame} · auth {token} · close {isDead} ·
 *   token {id, reason} · leave · event {event} · reset {reset} · error {frame} · stopped {code, reason}
 *
 * A socket is `opening`, `greeting` (open, no welcome yet), `live`, or `closing`; there is one at
 * most, known by its id: what comes from an older one is nobody's.
 */
export class Link {
  constructor(model, { random = Math.random, keepInBackground = false } = {}) {
    this.model = model;
    this.random = random;
    this.keep = keepInBackground;
    this.now = this.ids = this.asking = 0;
    this.effects = [];
    this.due = {};
    for (const name of ["retry", "connect", "auth", "silent", "pong", "refresh", "token", "sync"]) {
      this.due[name] = NEVER;
    }
    this.due.read = this.due.close = this.due.leave = NEVER;
    this.isWanted = this.isHidden = this.isSuspended = this.isHeld = this.isStale = false;
    this.isOnline = true;
    this.socket = this.token = this.leaving = this.end = this.error = null;
    this.reason = "connect"; // why the next token is asked for
    this.expiresAt = NEVER;
    this.renewedAt = this.offset = this.goal = this.syncs = 0;
    this.readAt = -NEVER;
    this.pingMs = 25000;
    this.tries = this.shortLives = this.refusals = 0;
  }

  handle(input, now) {
    this.now = now;
    this.effects = [];
    this[input.type](input);
    return this.effects;
  }

  next() {
    let next = NEVER;
    for (const name in this.due) if (this.due[name] < next) next = this.due[name];
    return next;
  }

  get status() {
    if (this.end) return "stopped";
    if (!this.isWanted) return "idle";
    if (this.isHidden || this.isSuspended) return "background";
    if (!this.isOnline) return "offline";
    if (this.isLive()) return this.socket.isReturning ? "connecting" : "live";
    return this.due.retry === NEVER ? "connecting" : "waiting";
  }

  isLive() {
    return !!this.socket && this.socket.phase === "live";
  }

  isMute() {
    return this.isHidden && !this.keep; // any frame but `leave` would say that we are back
  }

  does(effect) {
    this.effects.push(effect);
  }

  send(frame) {
    this.does({ do: "send", frame });
  }

  // -- connecting

  connect({ online }) {
    this.isOnline = online;
    if (!this.isWanted) {
      this.isWanted = true;
      this.end = this.error = null;
      this.tries = this.shortLives = this.refusals = 0;
    }
    this.attempt();
  }

  /** Takes the next step to a connection, where one is wanted, possible, and not under way. */
  attempt() {
    this.due.retry = NEVER;
    const { socket, leaving } = this;
    if (!this.isWanted || !this.isOnline || this.isSuspended || this.isMute()) return;
    if (this.asking || (socket && socket.phase !== "closing")) return;
    if (leaving && leaving.rest && !leaving.isTried) return this.leaveByRest();
    if (leaving && leaving.isBusy) return;
    this.isHeld = !!socket;
    if (socket) return;
    if (this.token && this.expiresAt <= this.now) {
      this.token = null;
      this.reason = "expired";
    }
    if (!this.token) return this.ask();
    const { known, seq, epoch } = this.model;
    this.socket = { id: ++this.ids, phase: "opening", liveAt: 0, isAway: false, isReturning: false };
    this.due.connect = this.now + ANSWER_MS;
    const from = known ? { since: seq, epoch } : {};
    this.does(Object.assign({ do: "open", id: this.ids, token: this.token }, from));
  }

  opened({ id, authMs = NEVER }) {
    const socket = this.socket;
    if (!socket || socket.id !== id || socket.phase !== "opening") return;
    socket.phase = "greeting";
    this.due.connect = this.now + ANSWER_MS;
    this.due.auth = this.now + authMs;
    this.tick();
  }

  closed({ id, code, reason }) {
    const socket = this.socket;
    if (!socket || socket.id !== id) return;
    if (socket.phase === "closing") return this.gone();
    this.lost(code || 1006, reason || "connection lost", { isGone: true });
  }

  failed({ id, reason }) {
    const socket = this.socket;
    if (!socket || socket.id !== id || socket.phase === "closing") return;
    this.lost(1006, reason || "connection failed", {});
  }

  /** The socket is closed, or has had its time to. */
  gone() {
    const isHeld = this.isHeld;
    this.socket = null;
    this.isHeld = false;
    this.due.close = NEVER;
    if (isHeld) this.attempt();
  }

  /** Closes the socket, whatever it was doing. */
  drop(isDead) {
    const { due, socket } = this;
    due.connect = due.auth = due.silent = due.pong = due.refresh = NEVER;
    due.sync = due.read = due.leave = NEVER;
    if (!socket || socket.phase === "closing") return;
    socket.phase = "closing";
    due.close = this.now + CLOSE_MS;
    this.does({ do: "close", isDead });
  }

  /** The connection is no more: stops, or comes back as the family of the close code wants it. */
  lost(code, reason, { afterMs = 1000, isGone = false, isDead = false, isTold = false }) {
    const { phase, liveAt, isAway } = this.socket;
    this.drop(isDead);
    if (isGone) {
      this.effects.pop(); // there is nothing left to close
      this.gone();
    }
    if (phase === "live") {
      this.shortLives = this.now - liveAt < SHORT_MS ? this.shortLives + 1 : 0;
      this.tries = Math.max(0, this.shortLives - 5); // a server that dies after each welcome
    }
    this.error = { code, reason };
    if (this.leaving) {
      if ((code === 1000 && isTold) || code === 4009) return this.stop(1000, "left");
    }
    const family = code === 4009 && isAway ? 0 : Math.floor(code / 100);
    if (family === 40) return this.stop(code, reason);
    if (family === 41) return this.retryIn(this.backOff((this.tries = Math.max(this.tries, 1) + 1)));
    if (family === 42) return this.retryIn(this.random() * afterMs);
    if (family === 43) return this.renewAfter(code, reason);
    this.again();
  }

  renewAfter(code, reason) {
    if (++this.refusals > 1) return this.stop(code, reason);
    this.token = null;
    this.reason = code === 4300 ? "expired" : "invalid";
    this.attempt();
  }

  /** After a lost network: soon, then less and less often. */
  again() {
    const n = this.tries++;
    this.retryIn(n ? this.backOff(n) : this.random() * FIRST_MS);
  }

  backOff(n) {
    const most = Math.min(MOST_MS, LEAST_MS * Math.pow(2, n));
    return LEAST_MS + this.random() * (most - LEAST_MS);
  }

  retryIn(ms) {
    const may = this.isWanted && this.isOnline && !this.isSuspended && !this.isMute();
    this.due.retry = may ? this.now + ms : NEVER;
    if (this.leaving) this.leaving.isTried = false;
  }

  stop(code, reason) {
    this.drop();
    this.due.retry = this.due.token = NEVER;
    this.isWanted = this.isHeld = false;
    this.asking = 0;
    this.leaving = null;
    this.end = this.error = { code, reason };
    this.does({ do: "stopped", code, reason });
  }

  // -- tokens

  ask() {
    this.asking = ++this.ids;
    this.due.token = this.now + TOKEN_MS;
    this.does({ do: "token", id: this.asking, reason: this.reason });
  }

  renewed({ id, token, isFresh }) {
    if (id !== this.asking) return;
    this.asking = 0;
    this.due.token = NEVER;
    this.token = token;
    this.expiresAt = NEVER;
    this.renewedAt = isFresh ? this.now : 0;
    if (this.isLive() && !this.isMute()) this.send({ type: "refresh", token });
    else this.attempt();
  }

  tokenFailed({ id, code, reason, isFinal }) {
    if (id !== this.asking) return;
    this.asking = 0;
    this.due.token = NEVER;
    if (this.token) {
      const at = this.now + ANSWER_MS; // the old one is still good
      this.due.refresh = isFinal || !this.isLive() || at > this.expiresAt ? NEVER : at;
      this.attempt();
    } else if (isFinal) {
      this.stop(code || (this.reason === "expired" ? 4300 : 4301), reason);
    } else {
      this.error = { code: code || 0, reason };
      this.again();
    }
  }

  expires(at) {
    if (at) this.expiresAt = Date.parse(at) - this.offset;
    const { expiresAt, renewedAt } = this;
    const early = expiresAt - REFRESH_MS;
    // A token that lives no longer than that is renewed after half of its life, not at once.
    const due = early > renewedAt ? early : (renewedAt + expiresAt) / 2;
    this.due.refresh = expiresAt < NEVER ? due : NEVER;
  }

  // -- what the server says

  frame({ id, frame }) {
    const { socket, due } = this;
    if (!socket || socket.id !== id || socket.phase === "closing") return;
    const isLive = socket.phase === "live";
    if (isLive && !this.isMute()) {
      due.silent = this.now + this.pingMs * 1.5;
      if (!socket.isReturning) due.pong = NEVER; // any frame is a sign of life
    }
    const type = frame && frame.type;
    if (type === "welcome") this.welcome(frame);
    else if (type === "bye") this.lost(frame.code, frame.reason, { afterMs: frame.afterMs, isTold: true });
    else if (type === "error") this.does({ do: "error", frame });
    else if (!isLive || typeof type !== "string") return;
    else if (type === "ping" || type === "pong") this.heard(frame);
    else if (type === "refreshed") this.expires(frame.tokenExpiresAt);
    else if (Number.isInteger(frame.seq)) this.event(frame);
  }

  welcome(frame) {
    const { model, socket } = this;
    const fromSeq = model.seq;
    const isOther = !!frame.epoch && !!model.epoch && frame.epoch !== model.epoch;
    const isSkip = model.known && !frame.resumed && (frame.seq !== fromSeq || isOther);
    model.welcome(frame);
    if (!frame.resumed) this.isStale = false;
    this.goal = this.syncs = 0;
    this.due.sync = this.due.read = NEVER;
    if (socket.phase !== "live") this.begin(frame);
    if (isSkip) {
      this.does({ do: "reset", reset: { fromSeq, seq: frame.seq, epoch: model.epoch } });
    }
    if (frame.resumed && frame.seq > fromSeq) this.misses(frame.seq);
    if (this.isStale) this.readAnew();
  }

  begin(frame) {
    const { due, socket } = this;
    socket.phase = "live";
    socket.liveAt = this.now;
    due.connect = due.auth = NEVER;
    this.refusals = 0;
    this.error = null;
    this.reason = "refresh";
    if (frame.pingMs > 0) this.pingMs = frame.pingMs;
    due.silent = this.now + this.pingMs * 1.5;
    const clock = Date.parse(frame.now);
    if (clock) this.offset = clock - this.now;
    this.expires(frame.tokenExpiresAt);
    if (this.leaving) this.sayLeave();
    else if (this.isMute()) this.sayAway();
  }

  /** A `ping` or `pong`: how far the log goes, and of which epoch it is. */
  heard({ type, seq, epoch }) {
    const { model, socket } = this;
    if (type === "pong" && socket.isReturning && !this.isMute()) {
      socket.isReturning = socket.isAway = false;
      this.due.pong = NEVER;
      this.expires();
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
    if (model.seq >= this.goal) this.due.sync = NEVER;
    this.does({ do: "event", event });
    if (!isUnderstood) this.readAnew();
  }

  /** Events up to `seq` are not here: asks for them, unless that is under way. */
  misses(seq) {
    this.goal = Math.max(this.goal, seq);
    if (this.due.sync !== NEVER || this.isMute()) return;
    const { seq: since, epoch } = this.model;
    this.send(epoch ? { type: "sync", since, epoch } : { type: "sync", since });
    this.due.sync = this.now + PROBE_MS;
  }

  /** Asks for a snapshot: the roster may be another than the one that is held here. */
  readAnew() {
    this.isStale = true;
    if (!this.isLive() || this.isMute() || this.due.read !== NEVER) return;
    this.due.read = Math.max(this.now, this.readAt + READ_MS);
    this.tick();
  }

  // -- time

  tick() {
    for (const name in this.due) {
      const at = this.due[name];
      if (at > this.now) continue;
      this.due[name] = NEVER;
      this["due_" + name](this.now - at > LATE_MS);
    }
  }

  due_retry() {
    this.attempt();
  }

  due_connect(isLate) {
    if (isLate) this.due.connect = this.now + PROBE_MS;
    else this.lost(1006, "no answer", { isDead: true });
  }

  due_auth() {
    this.does({ do: "auth", token: this.token });
  }

  due_silent() {
    this.probe();
  }

  due_pong(isLate) {
    if (isLate) this.probe();
    else this.lost(1006, "no answer", { isDead: true });
  }

  due_refresh() {
    if (!this.isMute() && !this.asking) this.ask();
  }

  due_token() {
    this.tokenFailed({ id: this.asking, reason: "getToken did not answer" });
  }

  due_sync() {
    if (++this.syncs > 1) return this.lost(1006, "no answer", { isDead: true });
    this.misses(this.goal);
  }

  due_read() {
    this.readAt = this.now;
    this.send({ type: "sync" });
  }

  due_close() {
    this.gone();
  }

  due_leave(isLate) {
    this.lost(1006, "no answer", { isDead: !isLate });
  }

  probe() {
    this.send({ type: "ping" });
    this.due.pong = this.now + PROBE_MS;
  }

  // -- the device

  network({ online }) {
    const was = this.isOnline;
    this.isOnline = online;
    if (!online) {
      this.drop(true);
      this.due.retry = NEVER;
    } else if (this.isLive()) {
      if (!this.isMute()) this.probe(); // another network, maybe, and the socket is of the old one
    } else if (!was || this.due.retry !== NEVER) {
      this.tries = 0;
      if (!this.asking) this.retryIn(this.random() * 1000);
    }
  }

  /** The mini-program is hidden: WeChat lets nothing be sent or opened before it is shown again. */
  background() {
    if (this.isHidden) return;
    this.isHidden = true;
    if (this.keep) return;
    this.due.retry = NEVER;
    if (this.isLive()) this.sayAway();
    else this.drop();
  }

  sayAway() {
    const { due, socket } = this;
    const { self } = this.model;
    socket.isAway = true;
    due.silent = due.pong = due.refresh = due.sync = due.read = NEVER;
    if (self && self.role !== "observer") this.send({ type: "away" });
  }

  foreground() {
    if (!this.isHidden && !this.isSuspended) return this.poke();
    this.isHidden = this.isSuspended = false;
    this.tries = 0;
    if (this.leaving) this.leaving.isTried = false;
    if (this.isLive()) {
      this.socket.isReturning = this.socket.isAway;
      this.probe();
    } else {
      this.attempt();
    }
  }

  /** The page goes into the cache of the browser, or for good. */
  suspend() {
    this.isSuspended = true;
    this.due.retry = NEVER;
    this.drop();
  }

  /** Somebody looks again: what should have happened meanwhile happens now. */
  poke() {
    this.tick();
    const { due } = this;
    const heardAt = due.silent - this.pingMs * 1.5;
    if (this.isLive() && due.pong === NEVER && this.now - heardAt > PROBE_MS) this.probe();
  }

  // -- leaving

  leave({ rest }) {
    if (this.leaving) return;
    this.leaving = { rest, isTried: false, isBusy: false };
    this.isWanted = true;
    this.end = null;
    if (this.isLive()) return this.sayLeave();
    if (!rest) return this.attempt();
    this.drop();
    this.asking = 0;
    this.due.token = this.due.retry = NEVER;
    this.leaveByRest();
  }

  sayLeave() {
    this.send({ type: "leave" });
    this.due.leave = this.now + PROBE_MS;
  }

  leaveByRest() {
    this.leaving.isTried = this.leaving.isBusy = true;
    this.does({ do: "leave" });
  }

  left() {
    if (this.leaving) this.stop(1000, "left");
  }

  leaveFailed({ isFinal }) {
    if (!this.leaving) return;
    this.leaving.isBusy = false;
    if (isFinal) this.leaving.rest = false;
    this.attempt();
  }
}

// ---------------------------------------------------------------------------------- platforms

/**
 * What a platform is:
 *   request({method, url, headers, body}) -> {answer: Promise<{status, header(name), body}>, abort()}
 *   open({url, protocols, headers, opened, message, closed, failed}) -> {send(text), close(isDead)}
 *   listen({network, background, foreground, suspend, poke}) -> a function that ends it
 *   isOnline()
 * `usesHeaders`: the token goes into the header of the upgrade request, not into a subprotocol.
 */

/** Browsers, and what is like one. */
export function browser() {
  const poke = (on) => () => document.visibilityState !== "hidden" && on.poke();
  return {
    name: "browser",
    origin: location.origin,
    isOnline: () => navigator.onLine !== false,
    request: fetched,
    open: (options) => opened(WebSocket, options),
    listen: (on) => {
      const pairs = [
        [window, "online", () => on.network(true)],
        [window, "offline", () => on.network(false)],
        [window, "pagehide", on.suspend],
        [window, "pageshow", on.foreground],
        [document, "visibilitychange", poke(on)],
        [document, "resume", poke(on)],
      ];
      for (const [target, name, listener] of pairs) target.addEventListener(name, listener);
      return () => {
        for (const [target, name, listener] of pairs) target.removeEventListener(name, listener);
      };
    },
  };
}

/** Node >= 18: `node({ WebSocket })`, with that of the `ws` package where Node has none (< 22). */
export function node(options) {
  const found = (options && options.WebSocket) || (typeof WebSocket !== "undefined" && WebSocket);
  return {
    name: "node",
    isOnline: () => true,
    request: fetched,
    open: found && ((options_) => opened(found, options_)),
    listen: () => () => {},
  };
}

function fetched({ method, url, headers, body }) {
  const controller = typeof AbortController === "undefined" ? null : new AbortController();
  const signal = controller ? controller.signal : undefined;
  const answer = fetch(url, { method, headers, body, signal }).then((response) =>
    response.text().then((text) => ({
      status: response.status,
      header: (name) => response.headers.get(name),
      body: text,
    })),
  );
  return { answer, abort: () => controller && controller.abort() };
}

function opened(WebSocket, { url, protocols, opened, message, closed, failed }) {
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => opened();
  socket.onmessage = ({ data }) => message(data);
  socket.onclose = ({ code, reason }) => closed(code, reason);
  socket.onerror = ({ message }) => failed(message);
  return {
    send: (text) => socket.send(text),
    close: (isDead) => {
      socket.close(1000);
      if (isDead && socket.terminate) socket.terminate(); // `ws`: nobody is there to say goodbye
    },
  };
}

/** WeChat's mini-programs: `wechat(wx)`. */
export function wechat(wx) {
  return {
    name: "wechat",
    usesHeaders: true,
    isOnline: () => true, // until WeChat says otherwise
    request: ({ method, url, headers, body }) => {
      let task;
      const answer = new Promise((resolve, reject) => {
        const success = ({ statusCode, data, header }) =>
          resolve({ status: statusCode, header: named(header), body: data });
        const fail = ({ errMsg }) => reject(new Error(errMsg));
        task = wx.request({ method, url, header: headers, data: body, success, fail });
      });
      return { answer, abort: () => task && task.abort && task.abort() };
    },
    open: ({ url, headers, opened, message, closed, failed }) => {
      const fail = (error) => failed(error && error.errMsg);
      const task = wx.connectSocket({ url, header: headers, timeout: ANSWER_MS, fail });
      if (!task) return null;
      task.onOpen(() => opened());
      task.onMessage(({ data }) => message(data));
      task.onClose((end) => closed(end && end.code, end && end.reason));
      task.onError(fail);
      return {
        send: (data) => task.send({ data, fail }),
        close: () => task.close({ code: 1000, fail: () => {} }),
      };
    },
    listen: (on) => {
      const pairs = [
        ["AppHide", () => on.background()],
        ["AppShow", () => on.foreground()],
        ["NetworkStatusChange", ({ isConnected }) => on.network(isConnected)],
      ];
      for (const [name, listener] of pairs) if (wx["on" + name]) wx["on" + name](listener);
      const success = ({ networkType }) => networkType === "none" && on.network(false);
      if (wx.getNetworkType) wx.getNetworkType({ success });
      return () => {
        for (const [name, listener] of pairs) if (wx["off" + name]) wx["off" + name](listener);
      };
    },
  };
}

/** Reads headers by name, however they are written. */
function named(headers) {
  return (name) => {
    for (const key in headers) if (key.toLowerCase() === name) return headers[key];
    return null;
  };
}

function detected() {
  if (typeof WebSocket !== "undefined" && typeof document !== "undefined") return browser();
  if (typeof wx !== "undefined" && wx.connectSocket) return wechat(wx);
  return node();
}

// ----------------------------------------------------------------------------------- REST calls

/** A call that failed: `code` as documented, or `NETWORK` and `TIMEOUT` where no answer came. */
export class ApiError extends Error {
  constructor(code, message, { status = 0, retryAfter, requestId } = {}) {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
    this.requestId = requestId;
  }
}

const SILENT_CODES = { 404: "NOT_FOUND", 413: "PAYLOAD_TOO_LARGE", 429: "RATE_LIMITED" };

/**
 * The documented calls. The staff token (`login`) and each room's guest token (`join`) are kept,
 * in `storage` too where one is given, and sent where they count.
 */
export class Api {
  constructor({ base, platform, token, storage } = {}) {
    this.platform = platform || detected();
    const url = String(base || this.platform.origin || "").replace(/\/+$/, "");
    if (!/^https?:\/\//.test(url)) throw new TypeError(`base must be an http(s) address: "${url}"`);
    this.base = url.replace(/\/api$/, "");
    this.storage = kept(storage);
    this.memory = {};
    if (token) this.token = token;
  }

  get token() {
    return this.recall("staff");
  }

  set token(token) {
    this.keep("staff", token || null);
  }

  /** What `join` brought for this room: `{guestId, guestToken, userName, identity}`, or null. */
  guest(roomId) {
    const guest = this.recall("guest:" + roomId);
    return guest && guest.guestToken ? guest : null;
  }

  /** The next `join` of this room is that of a new guest. */
  forget(roomId) {
    this.keep("guest:" + roomId, null);
  }

  login(code) {
    return this.call("POST", "/wechat/login", { body: { code } }).then((data) => {
      this.token = data.token;
      return data;
    });
  }

  getPhone(code) {
    return this.call("POST", "/wechat/get-phone", { body: { code }, token: this.token });
  }

  profile({ name, avatar }) {
    return this.call("POST", "/wechat/profile", { body: { name, avatar }, token: this.token });
  }

  qrcode(options) {
    return this.call("POST", "/wechat/generate-qrcode", { body: options, token: this.token });
  }

  createRoom(room) {
    return this.call("POST", "/interview/create-room", { body: room, token: this.token });
  }

  room(roomId) {
    return this.call("GET", roomPath(roomId));
  }

  rooms(query) {
    return this.call("GET", "/interview/rooms", { query, token: this.token });
  }

  endRoom(roomId) {
    return this.call("POST", roomPath(roomId) + "/end", { token: this.token });
  }

  events(roomId, query) {
    const { guestToken } = this.guest(roomId) || { guestToken: this.token };
    return this.call("GET", roomPath(roomId) + "/events", { query, token: guestToken });
  }

  remove(roomId, userId) {
    const path = `${roomPath(roomId)}/participants/${encodeURIComponent(userId)}/remove`;
    return this.call("POST", path, { token: this.token });
  }

  /** A second `join` of the same room is a return; one whose answer was lost is the same again. */
  join({ roomId, userName, identity }) {
    const name = "guest:" + roomId;
    const guest = this.recall(name) || { joinKey: randomKey() };
    const { guestToken, joinKey } = guest;
    if (joinKey) this.keep(name, guest);
    const body = { roomId, userName, identity, guestToken, joinKey };
    return this.call("POST", "/interview/guest/join", { body }).then((data) => {
      this.keep(name, {
        guestId: data.guestId,
        guestToken: data.guestToken,
        userName: data.userName,
        identity: data.identity,
      });
      return data;
    });
  }

  leave(roomId) {
    const { guestId, guestToken } = this.guest(roomId) || {};
    return this.call("POST", "/interview/guest/leave", { body: { roomId, guestId, guestToken } });
  }

  zegoToken(body) {
    const guest = this.guest(body.roomId);
    const isGuest = guest && guest.guestId === body.userId;
    return this.call("POST", "/zego/generate-token", {
      body,
      token: isGuest ? guest.guestToken : this.token,
    });
  }

  /** Any documented call: resolves to `data`, or rejects with an ApiError. */
  call(method, path, { body, query, token } = {}) {
    const headers = {};
    if (body) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = "Bearer " + token;
    const url = this.base + "/api" + path + queryOf(query);
    const text = body && JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const { answer, abort } = this.platform.request({ method, url, headers, body: text });
      const timer = setTimeout(() => {
        reject(new ApiError("TIMEOUT", "请求超时，请稍后重试"));
        abort();
      }, ANSWER_MS);
      const settle = (act) => (value) => {
        clearTimeout(timer);
        act(value);
      };
      answer.then(readAnswer, lostAnswer).then(settle(resolve), settle(reject));
    });
  }

  keep(name, value) {
    this.memory[name] = value;
    const { storage } = this;
    if (!storage) return;
    const key = this.keyOf(name);
    if (value) storage.set(key, JSON.stringify(value));
    else storage.remove(key);
  }

  recall(name) {
    if (!(name in this.memory) && this.storage) {
      try {
        this.memory[name] = JSON.parse(this.storage.get(this.keyOf(name)) || "null");
      } catch (error) {
        this.memory[name] = null; // not ours
      }
    }
    return this.memory[name] || null;
  }

  keyOf(name) {
    return `coordinator:${this.base}:${name}`;
  }
}

function readAnswer({ status, header, body }) {
  let answer = body;
  if (typeof body === "string") {
    try {
      answer = JSON.parse(body);
    } catch (error) {
      answer = null; // of a proxy
    }
  }
  if (answer && answer.success === true) return answer.data;
  if (status < 400) throw lostAnswerError(); // somebody else answered
  const { code, message, error, requestId } = answer || {};
  const otherwise = SILENT_CODES[status] || (status > 500 ? "SERVICE_UNAVAILABLE" : "INTERNAL_ERROR");
  const seconds = parseFloat(header("retry-after"));
  const retryAfter = seconds >= 0 ? seconds : undefined;
  throw new ApiError(code || otherwise, message || error || "请求失败", { status, retryAfter, requestId });
}

function lostAnswer(error) {
  const isSlow = /timeout/i.test((error && error.message) || "");
  throw isSlow ? new ApiError("TIMEOUT", "请求超时，请稍后重试") : lostAnswerError();
}

function lostAnswerError() {
  return new ApiError("NETWORK", "网络不可用，请稍后重试");
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

/** A storage of any of the three kinds; one that is full or forbidden keeps nothing. */
function kept(storage) {
  if (!storage) return null;
  const names = storage.getStorageSync
    ? ["getStorageSync", "setStorageSync", "removeStorageSync"]
    : storage.getItem
      ? ["getItem", "setItem", "removeItem"]
      : ["get", "set", "remove"];
  const [get, set, remove] = names.map((name) => (...args) => {
    try {
      return storage[name](...args);
    } catch (error) {
      return null;
    }
  });
  return { get, set, remove };
}

/** A secret of 32 characters; as random as the platform can. */
function randomKey() {
  const bytes = new Uint8Array(32);
  if (typeof crypto !== "undefined" && crypto.getRandomValues) crypto.getRandomValues(bytes);
  else for (let i = 0; i < 32; i++) bytes[i] = Math.random() * 256;
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return Array.from(bytes, (byte) => letters[byte & 63]).join("");
}

// ------------------------------------------------------------------------- the live connections

const NO_TOKEN = "NO_TOKEN";
const STOPS = { ROOM_NOT_FOUND: 4004, FORBIDDEN: 4005, ROOM_ENDED: 4010 }; // answers to a return
const GONE = [1000, 4004, 4005, 4009, 4010]; // nobody is left there to leave

/** Carries out what a `Link` decides: one socket, one timer, and the listeners. */
class Live {
  constructor(options, model) {
    const { api, base, token, getToken, platform, random } = options;
    this.api = api || new Api({ base, platform });
    this.platform = platform || this.api.platform;
    if (!this.platform.open) {
      throw new Error("Node < 22 has no WebSocket: pass platform: node({ WebSocket }) with that of `ws`");
    }
    this.fixedToken = token || null;
    this.getToken = getToken;
    this.model = model;
    this.link = new Link(model, options);
    this.clock = steadyClock();
    this.listeners = {};
    this.inputs = [];
    this.socket = this.timer = this.unlisten = null;
    this.timerAt = NEVER;
    this.isBusy = this.isClosed = this.isTelling = false;
    this.told = this.current = null;
  }

  /** Immutable; another object after each change. */
  get state() {
    const { link, model, current } = this;
    const status = this.isClosed ? "stopped" : link.status;
    const retryAt = status === "waiting" ? link.due.retry : null;
    const error = status === "live" ? null : link.error;
    const isSame =
      current &&
      this.version === model.version &&
      current.status === status &&
      current.retryAt === retryAt &&
      current.error === error;
    if (isSame) return current;
    this.version = model.version;
    this.current = Object.freeze(Object.assign({ status }, model.view(), { retryAt, error }));
    return this.current;
  }

  /** Calls `listener` at each event of that name; returns its own remover. */
  on(name, listener) {
    const all = (this.listeners[name] = this.listeners[name] || []);
    all.push(listener);
    return () => {
      const at = all.indexOf(listener);
      if (at >= 0) all.splice(at, 1);
    };
  }

  connect() {
    if (this.isClosed) return;
    this.listen();
    this.feed({ type: "connect", online: this.platform.isOnline() });
  }

  /** Ends this connection for good, and tells nobody: the server will see it go. */
  close() {
    if (this.isClosed) return;
    this.isClosed = true;
    clearTimeout(this.timer);
    if (this.unlisten) this.unlisten();
    this.hangUp();
    this.inputs = [];
    this.listeners = {};
  }

  listen() {
    if (this.unlisten) return;
    const input = (type) => () => this.feed({ type });
    this.unlisten = this.platform.listen({
      network: (online) => this.feed({ type: "network", online: !!online }),
      background: input("background"),
      foreground: input("foreground"),
      suspend: input("suspend"),
      poke: input("poke"),
    });
  }

  feed(input) {
    this.inputs.push(input);
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.inputs.length && !this.isClosed) {
      for (const effect of this.link.handle(this.inputs.shift(), this.clock())) {
        if (!this.isClosed) this[effect.do + "_"](effect);
      }
    }
    this.isBusy = false;
    if (this.isClosed) return;
    this.wind();
    this.notice();
  }

  /** One timer, for what is due first. It may ring early: then it is wound again. */
  wind() {
    const at = this.link.next();
    const isGood = this.timer ? this.timerAt <= at && at - this.timerAt < 1000 : at === NEVER;
    if (isGood) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.timerAt = at;
    if (at === NEVER) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.feed({ type: "tick" });
    }, Math.min(Math.max(at - this.clock(), 0), 2e9));
  }

  notice() {
    if (this.isTelling) return;
    this.isTelling = true;
    Promise.resolve().then(() => {
      this.isTelling = false;
      if (this.isClosed || this.state === this.told) return;
      this.told = this.state;
      this.tell("change", this.told);
    });
  }

  tell(name, about) {
    for (const listener of (this.listeners[name] || []).slice()) {
      try {
        listener(about);
      } catch (error) {
        if (typeof console !== "undefined") console.error(error);
      }
    }
  }

  hangUp(isDead) {
    const { socket } = this;
    this.socket = null;
    try {
      if (socket) socket.close(isDead);
    } catch (error) {
      // it was closed already
    }
  }

  // -- effects

  open_({ id, token, since, epoch }) {
    this.usedToken = token;
    const isKey = !!this.key;
    const isPlain = /^[\w.~+-]+$/.test(token); // else it fits into no header and no subprotocol
    const { platform } = this;
    const query = queryOf(Object.assign({ since, epoch }, this.query));
    const input = (type, about) => this.feed(Object.assign({ type, id }, about));
    const late = platform.usesHeaders ? AUTH_MS : NEVER;
    try {
      this.socket = platform.open({
        url: this.api.base.replace(/^http/, "ws") + "/api" + this.path + query,
        protocols: isPlain ? ["room.v1", (isKey ? "key." : "bearer.") + token] : [],
        headers: isPlain ? (isKey ? { "X-API-Key": token } : { Authorization: "Bearer " + token }) : {},
        opened: () => input("opened", { authMs: isPlain ? late : 0 }),
        message: (text) => input("frame", { frame: parsed(text) }),
        closed: (code, reason) => input("closed", { code, reason }),
        failed: (reason) => input("failed", { reason }),
      });
    } catch (error) {
      input("closed", { code: 1006, reason: String(error && error.message) });
    }
  }

  auth_({ token }) {
    this.send_({ frame: { type: "auth", [this.key ? "key" : "token"]: token } });
  }

  send_({ frame }) {
    const id = this.link.socket && this.link.socket.id;
    try {
      this.socket.send(JSON.stringify(frame));
    } catch (error) {
      this.feed({ type: "failed", id, reason: String(error && error.message) });
    }
  }

  close_({ isDead }) {
    this.hangUp(isDead);
  }

  token_({ id, reason }) {
    Promise.resolve()
      .then(() => this.findToken(reason))
      .then(({ token, isFresh }) => {
        if (!token || typeof token !== "string") throw new Error("getToken brought no token");
        this.feed({ type: "renewed", id, token, isFresh });
      })
      .catch((error) => {
        const { message = String(error), code } = error || {};
        const stopCode = STOPS[code];
        const isFinal = code === NO_TOKEN || !!stopCode;
        const about = { reason: message, code: stopCode || (isFinal ? 0 : code), isFinal };
        this.feed(Object.assign({ type: "tokenFailed", id }, about));
      });
  }

  /** The token to connect with, or a newer one; `reason` says why. */
  findToken(reason) {
    const token = this.fixedToken || this.api.token;
    if (token && (reason === "connect" || token !== this.usedToken)) return { token };
    if (!this.getToken) throw new ApiError(NO_TOKEN, "no token, and no getToken to ask for one");
    return Promise.resolve(this.getToken({ reason })).then((found) => ({ token: found, isFresh: true }));
  }

  event_({ event }) {
    this.tell("event", event);
  }

  reset_({ reset }) {
    this.tell("reset", reset);
  }

  error_({ frame }) {
    this.tell("error", frame);
  }

  stopped_({ code, reason }) {
    if (this.unlisten) this.unlisten();
    this.unlisten = null;
    this.tell("stopped", { code, reason });
  }
}

/** Milliseconds that never go back, whatever is done to the device's clock. */
function steadyClock() {
  let [last, skew] = [0, 0];
  return () => {
    const now = Date.now();
    if (now < last) skew += last - now;
    last = now;
    return now + skew;
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    return null;
  }
}

/** A room, followed live by its host, a guest, or an observer. */
export class Room extends Live {
  constructor(options) {
    const { roomId, roster, observe } = options;
    super(options, new RoomModel({ roster }));
    this.roomId = roomId;
    this.isObserver = !!observe;
    this.path = roomPath(roomId) + "/live";
    this.query = { roster: roster === "none" ? roster : null, observe: observe ? 1 : null };
    this.leaving = this.settle = null;
  }

  /** Leaves the room; resolves when that is done, however often the network fails meanwhile. */
  leave() {
    const { end } = this.link;
    if (end && GONE.indexOf(end.code) >= 0) return Promise.resolve();
    if (this.leaving) return this.leaving;
    this.leaving = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
    this.leaving.catch(() => {}); // who does not wait for it need not hear of it
    if (this.isClosed) {
      this.settleLeave(new Error("the connection was closed"));
    } else {
      this.listen();
      this.feed({ type: "leave", rest: !!this.guest() });
    }
    return this.leaving || Promise.resolve();
  }

  close() {
    super.close();
    this.settleLeave(new Error("the connection was closed before the room was left"));
  }

  settleLeave(error) {
    const { settle } = this;
    this.settle = null;
    if (!settle) return;
    if (error) settle.reject(error);
    else settle.resolve();
  }

  /** Whom REST knows here: `{guestId, guestToken, …}`; null for staff and observers. */
  guest() {
    if (this.isObserver) return null;
    const { self } = this.model;
    if (!this.fixedToken && !this.getToken) return this.api.guest(this.roomId);
    if (!self || self.role !== "guest") return null;
    return { guestId: self.userId, guestToken: this.usedToken };
  }

  findToken(reason) {
    const guest = !this.isObserver && !this.fixedToken && this.api.guest(this.roomId);
    if (!guest) return super.findToken(reason);
    if (guest.guestToken !== this.usedToken) return { token: guest.guestToken };
    const { userName, identity } = guest;
    return this.api
      .join({ roomId: this.roomId, userName, identity })
      .then(({ guestToken }) => ({ token: guestToken, isFresh: true }));
  }

  leave_() {
    const { guestId, guestToken } = this.guest();
    const body = { roomId: this.roomId, guestId, guestToken };
    this.api.call("POST", "/interview/guest/leave", { body }).then(
      () => this.feed({ type: "left" }),
      ({ status, code }) => {
        if (code === "ROOM_NOT_FOUND" || code === "NOT_FOUND") this.feed({ type: "left" });
        else this.feed({ type: "leaveFailed", isFinal: status >= 400 && status < 429 });
      },
    );
  }

  stopped_(effect) {
    const isLeft = GONE.indexOf(effect.code) >= 0;
    this.settleLeave(isLeft ? null : new Error("not left: " + effect.reason));
    if (!isLeft) this.leaving = null;
    super.stopped_(effect);
  }
}

/** An interview's progress, followed live with an API key or an admin's token. */
export class InterviewWatch extends Live {
  constructor(options) {
    super(options, new InterviewModel());
    this.key = options.key || null;
    this.path = `/open/interviews/${encodeURIComponent(options.interviewId)}/live`;
  }

  findToken(reason) {
    return this.key && reason === "connect" ? { token: this.key } : super.findToken(reason);
  }
}
