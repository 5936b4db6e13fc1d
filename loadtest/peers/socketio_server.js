// Socket.IO 4 with its Redis adapter, doing what the comparison asks: node socketio_server.js PORT REDIS_URL
// GET /socket.io/?room=r (websocket only) watches room r; told so by a "live" welcome.
'use strict';
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');
const { httpServer, inOrder, joining, storage } = require('./join.js');

const [port, redisUrl] = process.argv.slice(2);

async function main() {
  const publisher = createClient({ url: redisUrl });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const stored = await storage();
  let io;
  const tell = inOrder((roomId, event) => io.to(roomId).emit('live', event));
  const server = httpServer(stored, joining(stored, tell));
  io = new Server(server, {
    transports: ['websocket'], perMessageDeflate: false, serveClient: false,
    adapter: createAdapter(publisher, subscriber),
  });
  io.on('connection', async (socket) => {
    const roomId = socket.handshake.query.room;
    await socket.join(roomId);
    socket.emit('live', { type: 'welcome', roomId, seq: stored.lastSeq(roomId) });
  });
  server.listen(Number(port), '127.0.0.1', 4096);
}

main();
