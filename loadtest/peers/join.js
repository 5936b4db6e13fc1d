// What all peers of Node share: the calls that the load client makes, and where a join is kept.
//
//   POST /api/interview/create-room {roomId}                       a room to join
//   POST /api/interview/guest/join  {roomId, userName, identity}   an event, told to all who watch
//
// Without DATABASE_URL joins are kept nowhere. With it each is durable before anybody hears of it:
// the room's seq, the roster's row and the log's row in one statement, prepared once per connection.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');

const sql = (name) => fs.readFileSync(path.join(__dirname, name), 'utf8');

const TABLES = sql('tables.sql');

const CREATE = {
  name: 'create',
  text: 'INSERT INTO rooms (room_id) VALUES ($1) ON CONFLICT DO NOTHING',
};

const JOIN = { name: 'join', text: sql('join.sql') };

function pool() {
  const { Pool } = require('pg'); // PGHOST, PGUSER, PGDATABASE say where
  return new Pool({ max: 16 });
}

/** Joins that are kept nowhere. */
function inMemory() {
  const seqs = new Map();
  return {
    lastSeq: (roomId) => seqs.get(roomId) || 0,
    create: async () => {},
    async join(roomId) {
      const seq = (seqs.get(roomId) || 0) + 1;
      seqs.set(roomId, seq);
      return { seq, at: new Date() };
    },
  };
}

/** Joins in PostgreSQL. */
async function inPostgres() {
  const db = pool();
  await db.query(TABLES);
  const seqs = new Map();
  return {
    lastSeq: (roomId) => seqs.get(roomId) || 0,
    create: (roomId) => db.query({ ...CREATE, values: [roomId] }),
    async join(roomId, userId, userName, identity) {
      const { rows } = await db.query({ ...JOIN, values: [roomId, userId, userName, identity] });
      if (!rows.length) return null;
      const seq = Number(rows[0].last_seq);
      seqs.set(roomId, Math.max(seq, seqs.get(roomId) || 0));
      return { seq, at: rows[0].at };
    },
  };
}

/**
 * Tells the events of a room in the order of their seq: answers of several connections to
 * PostgreSQL may come in any.
 */
function inOrder(tell) {
  const rooms = new Map(); // roomId -> { next, waiting: seq -> event }
  return (event) => {
    let room = rooms.get(event.roomId);
    if (!room) rooms.set(event.roomId, (room = { next: 1, waiting: new Map() }));
    room.waiting.set(event.seq, event);
    for (let next; (next = room.waiting.get(room.next)); room.next++) {
      room.waiting.delete(room.next);
      tell(next.roomId, next);
    }
  };
}

const storage = () => (process.env.PGHOST ? inPostgres() : inMemory());

/** From the body of a join to its answer; `tell` hears of the event first. */
function joining(stored, tell) {
  return async ({ roomId, userName, identity = null }) => {
    const userId = 'guest_' + crypto.randomBytes(8).toString('hex');
    const joined = await stored.join(roomId, userId, userName, identity);
    if (joined === null) return null;
    const { seq, at } = joined;
    const participant = { userId, userName, role: 'guest', identity, joinedAt: at, connection: 'none' };
    tell({ type: 'participant_joined', roomId, seq, at, participant });
    return { guestId: userId, roomId, userName, identity, joinedAt: at, seq };
  };
}

function answer(response, status, body) {
  const raw = Buffer.from(JSON.stringify(body));
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': raw.length });
  response.end(raw);
}

/** A plain HTTP server with these calls. */
function httpServer(stored, join) {
  async function serve(request, response, parts) {
    const body = JSON.parse(Buffer.concat(parts));
    const isJoin = request.url.endsWith('/join');
    const data = isJoin ? await join(body) : await stored.create(body.roomId);
    if (isJoin && !data) return answer(response, 404, { success: false, code: 'ROOM_NOT_FOUND' });
    answer(response, 200, { success: true, data: isJoin ? data : { roomId: body.roomId } });
  }
  const server = require('http').createServer((request, response) => {
    if (request.method !== 'POST') return answer(response, 200, { success: true });
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => serve(request, response, parts).catch((error) => {
      console.error(error);
      answer(response, 500, { success: false, code: 'INTERNAL_ERROR' });
    }));
  });
  server.keepAliveTimeout = 60000;
  return server;
}

module.exports = { httpServer, inOrder, joining, pool, storage, TABLES, CREATE, JOIN };
