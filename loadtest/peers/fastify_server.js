// Fastify with pg and prepared statements, for `loadtest rest`: node fastify_server.js PORT
'use strict';
const { CREATE, JOIN, TABLES, pool } = require('./join.js');
const crypto = require('crypto');

const ROOM = { name: 'room', text: 'SELECT room_id, status, last_seq FROM rooms WHERE room_id = $1' };
const PEOPLE = {
  name: 'people',
  text: `SELECT user_id, user_name, role, identity, joined_at FROM people
         WHERE room_id = $1 AND left_at IS NULL ORDER BY joined_at, user_id`,
};

async function main() {
  const db = pool();
  await db.query(TABLES);
  const app = require('fastify')();
  const notFound = (reply) => reply.code(404).send({ success: false, code: 'ROOM_NOT_FOUND' });

  app.post('/api/interview/create-room', async (request) => {
    await db.query({ ...CREATE, values: [request.body.roomId] });
    return { success: true, data: { roomId: request.body.roomId } };
  });

  app.get('/api/interview/room/:roomId', async (request, reply) => {
    const values = [request.params.roomId];
    const { rows: [room] } = await db.query({ ...ROOM, values });
    if (!room) return notFound(reply);
    const { rows } = await db.query({ ...PEOPLE, values });
    const participants = rows.map((one) => ({
      userId: one.user_id, userName: one.user_name, role: one.role, identity: one.identity,
      joinedAt: one.joined_at,
    }));
    return { success: true, data: { roomId: room.room_id, status: room.status, participants } };
  });

  app.post('/api/interview/guest/join', async (request, reply) => {
    const { roomId, userName, identity = null } = request.body;
    const guestId = 'guest_' + crypto.randomBytes(8).toString('hex');
    const { rows: [joined] } = await db.query({ ...JOIN, values: [roomId, guestId, userName, identity] });
    if (!joined) return notFound(reply);
    const seq = Number(joined.last_seq);
    return { success: true, data: { guestId, roomId, userName, identity, joinedAt: joined.at, seq } };
  });

  await app.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
}

main();
