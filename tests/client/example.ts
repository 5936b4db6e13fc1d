// Typed use of the client, as a project in TypeScript would write it; never run, only checked.
import { Api, ApiError, InterviewWatch, Link, Room, RoomModel, browser, node } from "coordinator-client";
import type { Participant, Platform, RoomEvent, RoomState, Status } from "coordinator-client";

declare const socket: unknown;
const platforms: Platform[] = [browser(), node({ WebSocket: socket })];

const api = new Api({ base: "https://h.example/api", platform: platforms[0], storage: localStorage });
new Api({ base: "https://h.example", storage: { get: () => null, set: () => {}, remove: () => {} } });

async function guest(): Promise<void> {
  try {
    const { guestId, guestToken, seq } = await api.join({ roomId: "r", userName: "李明", identity: "求职者" });
    const text: string = guestId + guestToken + seq.toFixed();
    const { token } = await api.zegoToken({ userId: guestId, userName: text, roomId: "r" });
    const { list } = await api.rooms({ page: 1, status: "active" });
    const names: string[] = list.map((room) => room.roomName);
    names.push(token);
    const { phone } = await api.profile({ name: "张经理" });
    // @ts-expect-error a phone that is not known is left out
    names.push(phone);
    await api.leave("r");
  } catch (error) {
    if (error instanceof ApiError && error.retryAfter !== undefined) console.log(error.code, error.retryAfter + 1);
  }
}

function told(event: RoomEvent): string {
  switch (event.type) {
    case "participant_left":
      return event.participant.userName + event.reason;
    case "participant_away":
      return event.leaveAt;
    case "room_ended":
      return event.by;
    case "room_created":
      return event.room.roomName;
    default:
      return event.participant.userId;
  }
}

const room = new Room({ api, roomId: "r", roster: "none", observe: true });
const off: () => void = room.on("change", (state: RoomState) => {
  const status: Status = state.status;
  const people: readonly Participant[] = state.participants;
  console.log(status, people.length, state.retryAt, state.self && state.self.role);
  // @ts-expect-error a state never changes
  state.seq = 3;
});
room.on("event", (event) => console.log(told(event)));
room.on("reset", ({ fromSeq, seq, epoch }) => console.log(fromSeq, seq, epoch));
room.on("stopped", ({ code, reason }) => console.log(code.toFixed(), reason));
// @ts-expect-error there is no such event
room.on("anything", () => {});
room.connect();
void room.leave().then(guest).then(off);
room.close();

// @ts-expect-error a room has an id
new Room({ api });
new Room({ base: "https://h.example", roomId: "r", getToken: async ({ reason }) => (reason === "refresh" ? "a" : "b") });

const watch = new InterviewWatch({ api, interviewId: "c", key: "k" });
watch.on("event", (event) => console.log(event.answeredCount, event.grade));
watch.on("change", ({ interview }) => console.log(interview && interview.status));

const model = new RoomModel();
const link = new Link(model, { random: () => 0 });
console.log(link.handle({ type: "connect" }, 0), link.next(), model.view().participants);
