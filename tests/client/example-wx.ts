// The same in a mini-program, with WeChat's own types.
import { Api, Room, wechat } from "coordinator-client";

const api = new Api({ base: "https://h.example", platform: wechat(wx), storage: wx });

Page({
  data: { names: [] as string[] },
  room: null as Room | null,
  onLoad({ roomId }: { roomId: string }) {
    this.room = new Room({ api, roomId });
    this.room.on("change", ({ participants }) => {
      this.setData({ names: participants.map(({ userName }) => userName) });
    });
    this.room.connect();
  },
  onUnload() {
    if (this.room) this.room.close();
  },
});
