/* The WebSocket to the web process: says hello, comes back by itself, and asks for figures when it has taken the last ones.
 *
 * Events: "open", "closed", "refused" (the token is wrong: no more tries), "audio" (a chunk), and every message by its type.
 */

const HEADER_BYTES = 24;
const LAST = 1;
const GAP = 2;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 4000;
const NO_TOKEN = 4401;

export class Link extends EventTarget {
  constructor() {
    super();
    this.pause = FIRST_PAUSE_MS;
    this.isOpen = false;
  }

  connect(token) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.begin(socket, token);
    socket.onmessage = ({ data }) => this.take(data);
    socket.onclose = (event) => this.end(event, token);
    this.socket = socket;
  }

  begin(socket, token) {
    this.isOpen = true;
    this.send("hello", { token });
    this.send("figures", { seen: 0 });
    this.tell("open");
  }

  end({ code, reason }, token) {
    this.isOpen = false;
    if (code === NO_TOKEN) {
      this.tell("refused");
      return;
    }
    this.tell("closed", { reason });
    setTimeout(() => this.connect(token), this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }

  send(type, fields) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  take(data) {
    this.pause = FIRST_PAUSE_MS;
    if (typeof data !== "string") {
      this.tell("audio", chunkOf(data));
      return;
    }
    const message = JSON.parse(data);
    this.tell(message.type, message);
    if (message.type === "figures") this.send("figures", { seen: message.n });
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** The audio in a binary message. */
function chunkOf(data) {
  const view = new DataView(data);
  const flags = view.getUint32(16, true);
  return {
    id: view.getUint32(0, true),
    generation: view.getUint32(4, true),
    first: view.getFloat64(8, true),
    last: Boolean(flags & LAST),
    gap: Boolean(flags & GAP),
    rate: view.getUint32(20, true),
    samples: new Int16Array(data.slice(HEADER_BYTES)),
  };
}
