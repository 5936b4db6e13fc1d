/** A room's log on this page: each event once and in order, whatever came by which way. */

const PAGE = 500;
const AGAIN_S = 3; // where the server says nothing about when
export const TAIL = 400;

export class RoomLog {
  /**
   * @param read `read(after, limit)` asks the server: `{ events, lastSeq, hasMore }`.
   * @param take called with the next events in order, and whether they happened just now.
   */
  constructor(read, take) {
    this.read = read;
    this.take = take;
    this.next = 0; // 0: not begun
    this.goal = 0;
    this.waiting = new Map();
    this.isReading = false;
    this.again = null;
  }

  close() {
    clearTimeout(this.again);
    this.read = () => new Promise(() => {});
  }

  /** True once all that it was to reach has been taken. */
  get isThere() {
    return this.next > this.goal;
  }

  /** Begins with the last events before and at `seq`. */
  begin(seq) {
    if (this.next) return this.reach(seq);
    this.next = Math.max(1, seq - TAIL + 1);
    return this.reach(seq);
  }

  /** An event that was told live. */
  live(event) {
    if (!this.next) this.next = Math.max(1, event.seq - TAIL + 1);
    if (event.seq < this.next) return;
    if (event.seq === this.next && !this.isReading) {
      this.next++;
      this.take([event], true);
      return;
    }
    this.waiting.set(event.seq, event);
    this.reach(event.seq);
  }

  /** Reads until `seq` has been taken; where the server cannot now, again in a while. */
  async reach(seq) {
    this.goal = Math.max(this.goal, seq);
    if (this.isReading || this.again || this.goal < this.next) return;
    this.isReading = true;
    try {
      while (this.next <= this.goal) await this.readOn();
    } catch (error) {
      this.again = setTimeout(() => {
        this.again = null;
        this.reach(seq);
      }, (error.retryAfter || AGAIN_S) * 1000);
      return;
    } finally {
      this.isReading = false;
    }
    const later = [...this.waiting.values()].filter((event) => event.seq >= this.next);
    this.waiting.clear();
    for (const event of later) this.live(event);
  }

  async readOn() {
    const { events, lastSeq } = await this.read(this.next - 1, PAGE);
    const fresh = events.filter((event) => event.seq >= this.next);
    if (!fresh.length) {
      this.next = Math.max(lastSeq, this.goal) + 1; // deleted after its keeping time
      return;
    }
    this.next = fresh[fresh.length - 1].seq + 1;
    this.take(fresh, false);
  }
}

/** The whole log, page by page. */
export async function readWholeLog(read) {
  const events = [];
  for (;;) {
    const page = await read(events.length ? events[events.length - 1].seq : 0, PAGE);
    events.push(...page.events);
    if (!page.hasMore || !page.events.length) return events;
  }
}
