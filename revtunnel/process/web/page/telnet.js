// Telnet's commands out of a stream of bytes, and answers to them (RFC 854, 1073, 1091): we take a server that
// echoes and goes on without asking, say how large the screen is and what it is, and refuse the rest. A server
// that says nothing of it is left alone.

const [SE, SB, WILL, WONT, DO, DONT, IAC] = [240, 250, 251, 252, 253, 254, 255];
const [ECHO, GO_AHEAD, KIND, SIZE] = [1, 3, 24, 31];
const THEIRS = new Set([ECHO, GO_AHEAD]);
const OURS = new Set([GO_AHEAD, KIND, SIZE]);
const MOST = 256; // bytes of one subnegotiation

export class Telnet {
  /** `send(bytes)`; `size()` gives columns and rows. */
  constructor(send, size) {
    this.send = send;
    this.size = size;
    this.spoken = false; // the other side knows telnet
    this.theirs = new Set(); // options that are on there
    this.ours = new Set(); // and here
    this.said = []; // of a command that is not whole
    this.wasReturn = false;
  }

  /** Whether what is typed has to be shown here. */
  get shows() {
    return this.spoken && !this.theirs.has(ECHO);
  }

  /** What is for the screen. */
  take(bytes) {
    const found = [];
    for (const byte of bytes) {
      if (this.said.length) this.command(byte, found);
      else if (byte === IAC) this.said = [IAC];
      else {
        if (!(this.spoken && this.wasReturn && byte === 0)) found.push(byte);
        this.wasReturn = byte === 13;
      }
    }
    return new Uint8Array(found);
  }

  /** What somebody typed, as it goes to the other side. */
  typed(bytes) {
    if (!this.spoken) return bytes;
    return new Uint8Array([...bytes].flatMap((byte) => (byte === IAC ? [IAC, IAC] : byte === 13 ? [13, 10] : [byte])));
  }

  /** The screen is of another size. */
  resized() {
    if (!this.ours.has(SIZE)) return;
    const [columns, rows] = this.size();
    const numbers = [columns >> 8, columns & 255, rows >> 8, rows & 255];
    this.send(new Uint8Array([IAC, SB, SIZE, ...numbers.flatMap((each) => (each === IAC ? [IAC, IAC] : [each])), IAC, SE]));
  }

  command(byte, found) {
    const { said } = this;
    said.push(byte);
    const [, word, option] = said;
    if (said.length === 2) {
      if (word === IAC) found.push(IAC);
      if (word < SB || word === IAC) this.said = [];
    } else if (word === SB) {
      if (said.at(-2) === IAC && byte === SE) this.asked(said.slice(2, -2));
      if ((said.at(-2) === IAC && byte === SE) || said.length > MOST) this.said = [];
    } else {
      this.said = [];
      this.spoken = true;
      this.negotiate(word, option);
    }
  }

  /** Each option is answered once: when it changes, or is refused. */
  negotiate(word, option) {
    const [set, known, yes, no] = word === WILL || word === WONT ? [this.theirs, THEIRS, DO, DONT] : [this.ours, OURS, WILL, WONT];
    const on = word === WILL || word === DO;
    if (on && !known.has(option)) this.send(new Uint8Array([IAC, no, option]));
    else if (on !== set.has(option)) {
      if (on) set.add(option);
      else set.delete(option);
      this.send(new Uint8Array([IAC, on ? yes : no, option]));
      if (option === SIZE) this.resized();
    }
  }

  asked([option, ask]) {
    if (option === KIND && ask === 1) this.send(new Uint8Array([IAC, SB, KIND, 0, ...new TextEncoder().encode("xterm-256color"), IAC, SE]));
  }
}
