// Socket.IO 4 with its Redis adapter, doing what the comparison asks: node socketio_server.js PORT REDIS_URL
//
// GET  /socket.io/?room=r   (websocket only) watches room r; told so by a "live" welcome
// POST /api/interview/guest/join {roomId, userName, identity}   tells everybody who watches
'use strict';
const http = require('http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');

const [port, redisUrl] = process.argv.slice(2);
const seqs = new Map(); // roomId -> seq of its last event

function joined(io, { roomId, userName, identity }) {
  const seq = (seqs.get(roomId) || 0) + 1;
  seqs.set(roomId, seq);
  const at = new Date().toISOString();
  const userId = 'guest_' + roomId + '_' + seq;
  const participant = { userId, userName, role: 'guest', identity, joinedAt: at, connection: 'none' };
  io.to(roomId).emit('live', { type: 'participant_joined', roomId, seq, at, participant });
  return { guestId: userId, roomId, userName, identity, joinedAt: at, seq };
}

function answer(response, status, body) {
  const raw = Buffer.from(JSON.stringify(body));
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': raw.length });
  response.end(raw);
}

async function main() {
  const publisher = createClient({ url: redisUrl });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  let io;
  const server = http.createServer((request, response) => {
    if (request.method !== 'POST') return answer(response, 200, { success: true });
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      answer(response, 200, { success: true, data: joined(io, JSON.parse(Buffer.concat(parts))) });
    });
  });
  io = new Server(server, {
    transports: ['websocket'], perMessageDeflate: false, serveClient: false,
    adapter: createAdapter(publisher, subscriber),
  });
  io.on('connection', async (socket) => {
    const roomId = socket.handshake.query.room;
    await socket.join(roomId);
    socket.emit('live', { type: 'welcome', roomId, seq: seqs.get(roomId) || 0 });
  });
  server.keepAliveTimeout = 60000;
  server.listen(Number(port), '127.0.0.1');
}

main();
