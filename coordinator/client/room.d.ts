// Types of room.js. Members that the server may leave out are optional.

/** How somebody takes part: `none` joined over REST and never connected. */
export type Connection = "none" | "online" | "away";
export type Role = "host" | "guest";

export interface Participant {
  readonly userId: string;
  readonly userName: string;
  readonly role: Role;
  readonly identity?: string;
  readonly joinedAt: string;
  readonly connection: Connection;
}

/** A participant as events about its connection name it. */
export interface ParticipantName {
  readonly userId: string;
  readonly userName: string;
  readonly role: Role;
}

export interface RoomInfo {
  readonly roomName: string;
  readonly hostName: string;
  readonly status: "active" | "ended";
  readonly createdAt: string;
  readonly endedAt?: string;
}

/** Who this connection is; an `observer` is on no roster. */
export interface Self {
  readonly userId?: string;
  readonly name?: string;
  readonly role: Role | "observer";
}

// ------------------------------------------------------------------------------------- the frames

interface RoomEventMembers {
  readonly roomId: string;
  readonly seq: number;
  readonly at: string;
  /** With `roster: "none"`: who is in the room, and who of them is online. */
  readonly participantCount?: number;
  readonly onlineCount?: number;
}

export interface RoomCreated extends RoomEventMembers {
  readonly type: "room_created";
  readonly room: RoomInfo;
  readonly participant: Participant;
}
export interface ParticipantJoined extends RoomEventMembers {
  readonly type: "participant_joined";
  readonly participant: Participant;
}
export interface ParticipantOnline extends RoomEventMembers {
  readonly type: "participant_online";
  readonly participant: ParticipantName;
}
export interface ParticipantAway extends RoomEventMembers {
  readonly type: "participant_away";
  readonly participant: ParticipantName;
  readonly leaveAt: string;
}
export interface ParticipantBack extends RoomEventMembers {
  readonly type: "participant_back";
  readonly participant: ParticipantName;
}
export interface ParticipantLeft extends RoomEventMembers {
  readonly type: "participant_left";
  readonly participant: ParticipantName;
  readonly reason: "left" | "disconnected" | "removed";
}
export interface RoomEnded extends RoomEventMembers {
  readonly type: "room_ended";
  readonly endedAt: string;
  readonly by: string;
  readonly reason: "ended" | "host_absent" | "empty" | "expired";
}

/** An event of a room's log. Newer servers may have more types: keep a `default` in a `switch`. */
export type RoomEvent =
  | RoomCreated
  | ParticipantJoined
  | ParticipantOnline
  | ParticipantAway
  | ParticipantBack
  | ParticipantLeft
  | RoomEnded;

/** An event of an interview's log. */
export interface InterviewEvent {
  readonly type: "interview_created" | "interview_updated";
  readonly interviewId: string;
  readonly seq: number;
  readonly at: string;
  readonly status: InterviewStatus;
  readonly currentIndex: number;
  readonly answeredCount: number;
  readonly totalQuestions: number;
  readonly totalScore?: number;
  readonly grade?: "A" | "B" | "C";
}
export type InterviewStatus = "IN_PROGRESS" | "COMPLETED" | "CANCELLED";

interface WelcomeMembers {
  readonly type: "welcome";
  readonly seq: number;
  readonly epoch?: string;
  readonly resumed: boolean;
  readonly self: Self;
  readonly sessionId: string;
  readonly pingMs: number;
  readonly graceMs: number;
  readonly tokenExpiresAt?: string;
  readonly now: string;
}
export interface RoomWelcome extends WelcomeMembers {
  readonly roomId: string;
  readonly room?: RoomInfo;
  readonly participants?: readonly Participant[];
  readonly participantCount?: number;
  readonly onlineCount?: number;
}
export interface InterviewWelcome extends WelcomeMembers {
  readonly interviewId: string;
  readonly interview?: InterviewInfo;
}
export interface Ping {
  readonly type: "ping";
  readonly seq: number;
  readonly epoch?: string;
  readonly now: string;
}
export interface Pong {
  readonly type: "pong";
  readonly seq: number;
  readonly epoch?: string;
  readonly now: string;
}
export interface Refreshed {
  readonly type: "refreshed";
  readonly tokenExpiresAt: string;
}
/** A frame that the server did not take; the connection stays. */
export interface ErrorFrame {
  readonly type: "error";
  readonly code: string;
  readonly message: string;
}
export interface Bye {
  readonly type: "bye";
  readonly code: number;
  readonly reason: string;
  readonly retry: "no" | "backoff" | "soon" | "auth";
  readonly afterMs?: number;
}

// -------------------------------------------------------------------------------------- REST calls

export interface ApiErrorDetails {
  status?: number;
  retryAfter?: number;
  requestId?: string;
}

export class ApiError extends Error {
  constructor(code: string, message: string, details?: ApiErrorDetails);
  /** As documented; `NETWORK` and `TIMEOUT` (10 s) where no answer came. */
  readonly code: string;
  /** The HTTP status; 0 where no answer came. */
  readonly status: number;
  /** Seconds, where the server said how long to wait. */
  readonly retryAfter: number | undefined;
  /** Stands in the server's log. */
  readonly requestId: string | undefined;
}

/** Keeps strings by name: `wx`, `localStorage`, or an object of three functions. */
export type TokenStorage =
  | { getStorageSync(key: string): any; setStorageSync(key: string, value: any): void; removeStorageSync(key: string): void }
  | { getItem(key: string): string | null; setItem(key: string, value: string): void; removeItem(key: string): void }
  | { get(key: string): string | null | undefined; set(key: string, value: string): unknown; remove(key: string): unknown };

export interface ApiOptions {
  /** `https://host`, with or without `/api`; in a browser the page's own where absent. */
  base?: string;
  platform?: Platform;
  /** A staff token that is here already. */
  token?: string;
  /** Where tokens outlive a restart; in memory alone where absent. */
  storage?: TokenStorage;
}

export interface UserInfo {
  id: string;
  openid: string;
  role: "hr" | "admin";
  name?: string;
  avatar?: string;
  phone?: string;
}
export interface RoomSummary {
  roomId: string;
  roomName: string;
  hostName: string;
  status: "active" | "ended";
  participantCount: number;
  createdAt: string;
  endedAt?: string;
}
export interface RoomDetails {
  roomId: string;
  roomName: string;
  hostName: string;
  status: "active" | "ended";
  participants: Array<{
    userId: string;
    userName: string;
    role: Role;
    identity?: string;
    joinedAt: string;
    leftAt?: string;
    connection?: Connection;
  }>;
  participantCount: number;
  createdAt: string;
  endedAt?: string;
}
export interface Joined {
  guestId: string;
  roomId: string;
  userName: string;
  identity?: string;
  joinedAt: string;
  guestToken: string;
  seq: number;
  epoch?: string;
}
export interface KeptGuest {
  guestId: string;
  guestToken: string;
  userName: string;
  identity?: string;
}
export interface QrcodeOptions {
  scene: string;
  page?: string;
  width?: number;
  autoColor?: boolean;
  lineColor?: { r: number; g: number; b: number };
  envVersion?: string;
  isHyaline?: boolean;
}
export interface CallOptions {
  body?: object;
  query?: { [name: string]: string | number | boolean | null | undefined };
  token?: string | null;
}

/** Every call resolves to the answer's `data`, or rejects with an ApiError. */
export class Api {
  constructor(options?: ApiOptions);
  readonly base: string;
  readonly platform: Platform;
  /** The staff token. */
  get token(): string | null;
  set token(token: string | null);
  /** What `join` brought for this room; null before. */
  guest(roomId: string): KeptGuest | null;
  /** The next `join` of this room is that of a new guest. */
  forget(roomId: string): void;

  login(code: string): Promise<{ token: string; userInfo: UserInfo }>;
  getPhone(code: string): Promise<{ phoneNumber: string; purePhoneNumber: string; countryCode: string }>;
  profile(profile: { name?: string; avatar?: string }): Promise<UserInfo>;
  qrcode(options: QrcodeOptions): Promise<{ qrcodeUrl: string; buffer: string }>;
  createRoom(room: { roomId: string; roomName: string; hostName: string }): Promise<{
    roomId: string;
    roomName: string;
    hostName: string;
    status: "active";
    createdAt: string;
  }>;
  room(roomId: string): Promise<RoomDetails>;
  rooms(query?: {
    page?: number;
    pageSize?: number;
    status?: "active" | "ended";
    q?: string;
  }): Promise<{ total: number; page: number; pageSize: number; list: RoomSummary[] }>;
  endRoom(roomId: string): Promise<{ roomId: string; status: "ended"; endedAt: string }>;
  events(
    roomId: string,
    query?: { after?: number; limit?: number; epoch?: string },
  ): Promise<{ events: RoomEvent[]; lastSeq: number; hasMore: boolean; epoch?: string }>;
  remove(roomId: string, userId: string): Promise<{ roomId: string; userId: string; removed: true }>;
  join(guest: { roomId: string; userName: string; identity?: string }): Promise<Joined>;
  leave(roomId: string): Promise<void>;
  zegoToken(request: {
    userId: string;
    userName: string;
    roomId: string;
    expireTime?: number;
  }): Promise<{ token: string; appId: number; userId: string; roomId: string; expireTime: number }>;
  /** Any other call of the documentation; `path` is what follows `/api`. */
  call(method: string, path: string, options?: CallOptions): Promise<any>;
}

// ------------------------------------------------------------------------------------- platforms

export interface RequestOptions {
  method: string;
  url: string;
  headers: { [name: string]: string };
  body?: string;
}
export interface PlatformAnswer {
  status: number;
  header(name: string): string | null | undefined;
  /** Text, or JSON that the platform has read. */
  body: unknown;
}
export interface SocketOptions {
  url: string;
  protocols: string[];
  opened(): void;
  message(text: unknown): void;
  closed(code?: number, reason?: string): void;
}
export interface PlatformSocket {
  send(text: string): void;
  /** `isDead`: nobody will answer the close. */
  close(isDead?: boolean): void;
}
/**
 * `looked`: how the network is found, where its changes may have been missed. `foreground` ends
 * `background` and `suspend`; `poke`: somebody looks again.
 */
export interface PlatformNews {
  (name: "network" | "looked", isOnline: boolean): void;
  (name: "background" | "foreground" | "suspend" | "poke"): void;
}
/** Sockets, requests and the news of where this runs. */
export interface Platform {
  /** The page's own address, where there is one. */
  readonly origin?: string;
  /** Subprotocols cannot be relied on: the token goes into the first frame. */
  readonly authByFrame?: boolean;
  request(options: RequestOptions): Promise<PlatformAnswer>;
  open?: ((options: SocketOptions) => PlatformSocket | null) | null;
  /** Returns a function that ends it. */
  listen(tell: PlatformNews): () => void;
}

export function browser(): Platform;
/** `wechat(wx)`. */
export function wechat(wx: any): Platform;
/** `node({ WebSocket })`: that of the `ws` package where Node has none (< 22). */
export function node(options?: { WebSocket?: any }): Platform;

// ------------------------------------------------------------------------- the live connections

export type Status = "idle" | "connecting" | "live" | "waiting" | "offline" | "background" | "stopped";

export interface Problem {
  readonly code: number | string;
  readonly reason: string;
}
export interface Stopped {
  /** As in the contract's table of close codes; 1000 after `leave()`. */
  readonly code: number;
  readonly reason: string;
}
/** Events `fromSeq` + 1 to `seq` were skipped: the state is that of a snapshot. */
export interface Reset {
  readonly fromSeq: number;
  readonly seq: number;
  readonly epoch: string | null;
}
/** Why a token is asked for: 60 s before the old one ends, or because the server refused it. */
export type TokenReason = "connect" | "refresh" | "expired" | "invalid";

interface LiveState {
  readonly status: Status;
  readonly seq: number;
  readonly epoch: string | null;
  readonly self: Self | null;
  /** `waiting` until then: milliseconds, as of `Date.now()`. */
  readonly retryAt: number | null;
  readonly error: Problem | null;
}
export interface RoomState extends LiveState {
  readonly room: RoomInfo | null;
  /** In order of joining; an entry that did not change is the same object. */
  readonly participants: readonly Participant[];
  readonly participantCount: number;
  readonly onlineCount: number;
}
export interface InterviewInfo {
  readonly id?: string;
  readonly status: InterviewStatus;
  readonly currentIndex: number;
  readonly answeredCount?: number;
  readonly totalQuestions?: number;
  readonly totalScore?: number;
  readonly grade?: "A" | "B" | "C";
  readonly [member: string]: unknown;
}
export interface InterviewState extends LiveState {
  readonly interview: InterviewInfo | null;
}

interface LiveOptions {
  /** The calls and their tokens; or `base` with `token` or `getToken`. */
  api?: Api;
  base?: string;
  platform?: Platform;
  token?: string;
  getToken?: (why: { reason: TokenReason }) => string | Promise<string>;
  /** For calls that go on with sound: going to the background is not `away`. */
  keepInBackground?: boolean;
  random?: () => number;
}
export interface RoomOptions extends LiveOptions {
  roomId: string;
  /** `none`: counts in place of names. */
  roster?: "full" | "none";
  /** Looks on: on no roster, no event. */
  observe?: boolean;
}
export interface InterviewWatchOptions extends LiveOptions {
  interviewId: string;
  /** An API key, in place of an admin's token. */
  key?: string;
}

interface LiveListeners<State, Event> {
  change: (state: State) => void;
  event: (event: Event) => void;
  reset: (reset: Reset) => void;
  stopped: (end: Stopped) => void;
  error: (frame: ErrorFrame) => void;
}

declare abstract class Live<State, Event> {
  readonly api: Api;
  /** Immutable; another object after each change. */
  readonly state: State;
  /** Returns its own remover. */
  on<Name extends keyof LiveListeners<State, Event>>(
    name: Name,
    listener: LiveListeners<State, Event>[Name],
  ): () => void;
  connect(): void;
  /** Ends this connection for good; tells nothing. */
  close(): void;
}

export class Room extends Live<RoomState, RoomEvent> {
  constructor(options: RoomOptions);
  readonly roomId: string;
  /** Leaves the room: resolves when that is done, then `stopped` with code 1000. */
  leave(): Promise<void>;
}

export class InterviewWatch extends Live<InterviewState, InterviewEvent> {
  constructor(options: InterviewWatchOptions);
}

// ------------------------------------------------------------------------------ the pure parts

/** A room as its log tells it: applying events 1..n to a new one gives the room at n. */
export class RoomModel {
  constructor(options?: { roster?: "full" | "none" });
  readonly seq: number;
  readonly epoch: string | null;
  welcome(frame: RoomWelcome): void;
  /** False where the event holds what this version does not know. */
  apply(event: RoomEvent): boolean;
  adopt(epoch: string | undefined): void;
  view(): Pick<
    RoomState,
    "seq" | "epoch" | "room" | "participants" | "participantCount" | "onlineCount" | "self"
  >;
}

export class InterviewModel {
  readonly seq: number;
  readonly epoch: string | null;
  welcome(frame: InterviewWelcome): void;
  apply(event: InterviewEvent): boolean;
  adopt(epoch: string | undefined): void;
  view(): Pick<InterviewState, "seq" | "epoch" | "interview" | "self">;
}

export type LinkInput = { type: string; [member: string]: unknown };
export type LinkEffect = [name: string, ...about: unknown[]];

/** Decides what a connection does, and does nothing itself: no socket, no timer, no clock. */
export class Link {
  constructor(
    model: RoomModel | InterviewModel,
    options?: { random?: () => number; keepInBackground?: boolean },
  );
  readonly status: Status;
  /** What is to be done now, in order; `now` in milliseconds. */
  handle(input: LinkInput, now: number): LinkEffect[];
  /** When a `tick` is wanted; `Infinity` where none is. */
  next(): number;
}

export {}; // nothing else
