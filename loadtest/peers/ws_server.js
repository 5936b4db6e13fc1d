// `ws` with Redis pub/sub by hand, doing what the comparison asks: node ws_server.js PORT REDIS_URL
// GET /live/<room> (websocket) watches a room; told so by a welcome.
'use strict';
const { WebSocketServer } = require('ws');
const { createClient } = require('redis');
const { httpServer, inOrder, joining, storage } = require('./join.js');

const [port, redisUrl] = process.argv.slice(2);
const me = process.pid + ' ';
const rooms = new Map(); // roomId -> sockets

function deliver(roomId, text) {
  for (const socket of rooms.get(roomId) || []) socket.send(text);
}

/** `<pid> <room> <event>` of another process. */
function hear(message) {
  if (message.startsWith(me)) return;
  const start = message.indexOf(' ') + 1;
  const end = message.indexOf(' ', start);
  deliver(message.slice(start, end), message.slice(end + 1));
}

async function main() {
  const publisher = createClient({ url: redisUrl });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  await subscriber.subscribe('events', hear);
  const stored = await storage();
  const tell = inOrder((roomId, event) => {
    const text = JSON.stringify(event);
    deliver(roomId, text);
    publisher.publish('events', me + roomId + ' ' + text);
  });
  const server = httpServer(stored, joining(stored, tell));
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  sockets.on('connection', (socket, request) => {
    const roomId = decodeURIComponent(request.url.slice('/live/'.length));
    if (!rooms.has(roomId)) rooms.set(roomId, new Set());
    rooms.get(roomId).add(socket);
    socket.on('close', () => rooms.get(roomId).delete(socket));
    socket.send(JSON.stringify({ type: 'welcome', roomId, seq: stored.lastSeq(roomId) }));
  });
  server.listen(Number(port), '127.0.0.1', 4096);
}

main();
