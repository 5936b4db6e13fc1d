// What the client costs: `node benchmark.mjs` prints the figures, the best of several rounds. Where
// other processes have the machine meanwhile, the time that this one had counts.
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { gzipSync } from "node:zlib";

import { Room, RoomModel } from "../../coordinator/client/room.js";
import { FakePlatform, guest, presence, welcome } from "./virtual.mjs";

const ROUNDS = 15;

function best(act) {
  let least = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const given = act.prepare ? act.prepare() : undefined;
    const [start, used] = [performance.now(), process.cpuUsage()];
    act.run(given);
    const { user, system } = process.cpuUsage(used);
    least = Math.min(least, performance.now() - start, (user + system) / 1000);
  }
  return Math.round(least * 100) / 100;
}

const people = (count) => Array.from({ length: count }, (_, n) => guest(n));

/** A mixture: three of four change a connection, the others go and come. */
function events(count, room) {
  return Array.from({ length: count }, (_, n) => {
    const who = Math.floor(n / 4) % room;
    const seq = n + 2;
    if (n % 4 === 0) return presence("participant_away", seq, who, { leaveAt: "2024-01-01T10:06:30.000Z" });
    if (n % 4 === 1) return presence("participant_back", seq, who);
    if (n % 4 === 2) return presence("participant_left", seq, who, { reason: "left" });
    return { ...presence("participant_joined", seq, who), participant: guest(who) };
  });
}

const greeting = (count) => welcome({ seq: 1, participants: people(count) });

const CALIBRATION_MS = 1.9; // best of a machine of its own, for the work of `calibration`

/** Work that has nothing to do with the client: how slow this machine is just now, at its best. */
const calibration = () => {
  const words = Array.from({ length: 20_000 }, (_, n) => (n * 7919) % 20_011);
  words.sort((one, other) => one - other);
};

const figures = {
  "times slower than the machine of the bounds": Math.max(1, best({ run: calibration }) / CALIBRATION_MS),
  "gzipped size, bytes": gzipSync(readFileSync(new URL("../../coordinator/client/room.js", import.meta.url))).length,
  "10,000 events through the reducer, room of 1,000, ms": best({
    prepare: () => {
      const model = new RoomModel();
      model.welcome(greeting(1000));
      return { model, log: events(10_000, 1000) };
    },
    run: ({ model, log }) => log.forEach((event) => model.apply(event)),
  }),
  "the same, and the state looked at after each, ms": best({
    prepare: () => {
      const model = new RoomModel();
      model.welcome(greeting(1000));
      return { model, log: events(10_000, 1000) };
    },
    run: ({ model, log }) => log.forEach((event) => model.apply(event) && model.view()),
  }),
  "10,000 frames as text through a live Room of 1,000, ms": best({
    prepare: () => {
      const { room, socket } = live(greeting(1000));
      return { room, socket, texts: events(10_000, 1000).map((event) => JSON.stringify(event)) };
    },
    run: ({ room, socket, texts }) => {
      for (const text of texts) socket.options.message(text);
      if (room.state.seq !== 10_001) throw new Error("not all was told");
      room.close();
    },
  }),
  "a snapshot of 10,000 people as text, ms": best({
    prepare: () => ({ ...live(greeting(1)), text: JSON.stringify(greeting(10_000)) }),
    run: ({ room, socket, text }) => {
      socket.options.message(text);
      if (room.state.participants.length !== 10_000) throw new Error("not everybody is there");
      room.close();
    },
  }),
};

function live(frame) {
  const platform = new FakePlatform();
  const room = new Room({ base: "http://h", roomId: "room_1", token: "t", platform });
  // The token is here at once: no turn of the loop passes in a benchmark.
  room.ask = ({ id }) => room.feed({ type: "renewed", id, token: "t" });
  room.connect();
  platform.socket.opens();
  platform.socket.says(frame);
  return { room, socket: platform.socket };
}

console.log(JSON.stringify(figures, null, 2));
