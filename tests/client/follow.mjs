// Follows one room and prints every state as a line of JSON, until it is killed.
import WebSocket from "ws";

import { Room, node } from "../../coordinator/client/room.js";

const { url, roomId, token } = JSON.parse(process.env.ABOUT);
const room = new Room({ base: url, roomId, token, platform: node({ WebSocket }) });
room.on("change", (state) => console.log(JSON.stringify(state)));
room.connect();
