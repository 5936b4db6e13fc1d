// A device in virtual time: its clock and timers, its network, and the server at the other end.

/** Replaces the timers and the clock of this process; `advance` lets time pass. */
export class VirtualTime {
  constructor() {
    this.now = 1_700_000_000_000;
    this.timers = new Map();
    this.ids = 0;
    this.wakes = 0;
    this.real = { setTimeout, clearTimeout, now: Date.now, setInterval };
  }

  install() {
    globalThis.setTimeout = (act, ms = 0) => {
      const id = ++this.ids;
      this.timers.set(id, { at: this.now + Math.max(0, ms), act });
      return id;
    };
    globalThis.clearTimeout = (id) => this.timers.delete(id);
    globalThis.setInterval = () => {
      throw new Error("the client has no intervals");
    };
    Date.now = () => this.now;
    return this;
  }

  uninstall() {
    Object.assign(globalThis, {
      setTimeout: this.real.setTimeout,
      clearTimeout: this.real.clearTimeout,
      setInterval: this.real.setInterval,
    });
    Date.now = this.real.now;
  }

  /** What is waiting to run runs. */
  settle() {
    return new Promise((resolve) => setImmediate(resolve));
  }

  async advance(ms) {
    const end = this.now + ms;
    await this.settle();
    for (;;) {
      let first = null;
      for (const [id, timer] of this.timers) {
        if (timer.at <= end && (!first || timer.at < first.at)) first = { id, ...timer };
      }
      if (!first) break;
      this.timers.delete(first.id);
      this.now = Math.max(this.now, first.at);
      this.wakes++;
      first.act();
      await this.settle();
    }
    this.now = end;
  }

  /** The device sleeps: time passes, timers do not ring; those overdue ring on waking. */
  async sleep(ms) {
    this.now += ms;
    await this.advance(0);
  }
}

/** A platform whose sockets the test holds in its hands. */
export class FakePlatform {
  constructor({ authByFrame = false } = {}) {
    this.authByFrame = authByFrame;
    this.sockets = [];
    this.requests = [];
    this.listeners = new Set();
    this.isRefusing = false;
    this.answers = () => new Promise(() => {});
  }

  request = (request) => {
    this.requests.push(request);
    return this.answers(request);
  };

  open = (options) => {
    const open = this.sockets.filter((socket) => socket.holds);
    if (open.length) throw new Error("a second socket beside an open one");
    const socket = new FakeSocket(options);
    this.sockets.push(socket);
    if (this.isRefusing) socket.end(1006);
    return socket;
  };

  listen = (tell) => {
    this.listeners.add(tell);
    return () => this.listeners.delete(tell);
  };

  tell(...news) {
    for (const listener of this.listeners) listener(...news);
  }

  get socket() {
    return this.sockets[this.sockets.length - 1];
  }
}

export class FakeSocket {
  constructor(options) {
    this.options = options;
    this.sent = [];
    this.wasClosed = false;
    this.isOver = false;
    this.fails = false;
  }

  /** True while this socket is one that the client would have to close first. */
  get holds() {
    return !this.wasClosed && !this.isOver;
  }

  get url() {
    return new URL(this.options.url);
  }

  send(text) {
    if (this.fails) throw new Error("InvalidStateError");
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.wasClosed = true;
  }

  opens() {
    this.options.opened();
  }

  says(frame) {
    this.options.message(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** The close event. */
  end(code, reason) {
    this.isOver = true;
    this.options.closed(code, reason);
  }

  bye(code, members = {}) {
    this.says({ type: "bye", code, reason: `reason ${code}`, retry: "no", ...members });
    this.end(code);
  }
}

export const HOST = {
  userId: "user_001", userName: "张经理", role: "host",
  joinedAt: "2024-01-01T10:00:00.000Z", connection: "online",
};

export function guest(n, connection = "online") {
  return {
    userId: `guest_${n}`, userName: `李明${n}`, role: "guest", identity: "求职者",
    joinedAt: "2024-01-01T10:05:00.000Z", connection,
  };
}

export function welcome(members = {}) {
  return {
    type: "welcome", roomId: "room_1", seq: 3, epoch: "e1", resumed: false,
    room: { roomName: "R", hostName: "张经理", status: "active", createdAt: "2024-01-01T10:00:00.000Z" },
    participants: [HOST, guest(1)],
    self: { userId: "guest_1", role: "guest" }, sessionId: "s", pingMs: 25000, graceMs: 30000,
    now: new Date(Date.now()).toISOString(), ...members,
  };
}

export function resumed(seq, members = {}) {
  const { room, participants, ...rest } = welcome({ seq, resumed: true });
  return { ...rest, ...members };
}

export function joined(seq, n, members = {}) {
  return {
    type: "participant_joined", roomId: "room_1", seq, at: "2024-01-01T10:06:00.000Z",
    participant: guest(n, "none"), ...members,
  };
}

export function presence(type, seq, n, members = {}) {
  const { userId, userName, role } = guest(n);
  return {
    type, roomId: "room_1", seq, at: "2024-01-01T10:06:00.000Z",
    participant: { userId, userName, role }, ...members,
  };
}
