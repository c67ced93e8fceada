/* A player for one page: samples in, sound out, and exact reports of what was heard.
 *
 * Where AudioWorklet exists, the ring of worklet.js plays. It does not exist on a page that came by plain HTTP from another
 * machine; there, buffers are scheduled one after the other. Both have push, collect, flush, stop, reset and close, and call
 * `onReport({generation, sample, taken, buffered_ms, cushion_ms, underruns, gaps})` every 250 ms.
 */

const START_MS = 3000;
const STOP_MS = 300;
const FADE_S = 0.015;
const CUSHION_S = 0.08; // until the server says another
const STEP_LEAST_S = 0.04; // the cushion grows by as much as was missing, within these
const STEP_MOST_S = 0.2;
const CUSHION_MOST_S = 1;
const SCALE = 1 / 32767;

/** A player at `rate` if the browser has it, else at the browser's own rate: `player.rate`. Call it in a click. */
export async function openPlayer(rate, onReport) {
  const context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
  const resumed = context.resume();
  const player = context.audioWorklet ? new WorkletPlayer(context, onReport) : new ScheduledPlayer(context, onReport);
  await player.open();
  await Promise.race([resumed, new Promise((resolve) => setTimeout(resolve, START_MS))]);
  if (context.state !== "running") {
    await player.close();
    throw new Error("the browser has not started its sound; try again");
  }
  return player;
}

/** Samples between what the audio thread has played and what comes out of the loudspeaker. */
function latencySamples(context) {
  return Math.round((context.outputLatency || context.baseLatency || 0) * context.sampleRate);
}

/** The last sample that has come out of the loudspeaker, if `inside` of those that were played have not. */
function heard({ generation, sample }, inside) {
  return { generation, sample: Math.max(-1, sample - inside) };
}

class WorkletPlayer {
  constructor(context, onReport) {
    this.kind = "worklet";
    this.context = context;
    this.rate = context.sampleRate;
    this.onReport = onReport;
    this.tapped = null; // for tests: what was played, block by block
  }

  async open() {
    await this.context.audioWorklet.addModule("/static/worklet.js");
    this.node = new AudioWorkletNode(this.context, "ring", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.take(data);
    this.node.connect(this.context.destination);
  }

  take(data) {
    if (data.report) {
      const inside = this.inside(data.report, data.report.now);
      this.onReport({ ...data.report, ...heard(data.report, inside), playing: data.report.playing || inside > 0 });
    }
    if (data.stopped) this.stopped?.(heard(data.stopped, this.inside(data.stopped, data.stopped.frame)));
    if (data.played) this.tapped?.push(data);
  }

  /** Samples that are played and have not come out of the loudspeaker by the time `now` of the audio thread. */
  inside({ frame }, now) {
    return Math.max(0, latencySamples(this.context) - (now - frame));
  }

  push(chunk) {
    this.node.port.postMessage({ do: "push", ...chunk }, [chunk.samples.buffer]);
  }

  flush(generation) {
    this.node.port.postMessage({ do: "flush", generation });
  }

  collect(seconds) {
    this.node.port.postMessage({ do: "collect", seconds });
  }

  reset() {
    this.node.port.postMessage({ do: "reset" });
  }

  tap() {
    this.tapped = [];
    this.node.port.postMessage({ do: "listen_in", on: true });
  }

  /** Fade out and drop the rest; what was heard last, or null if the audio thread does not answer. */
  async stop() {
    const answer = new Promise((resolve) => { this.stopped = resolve; });
    this.node.port.postMessage({ do: "stop" });
    return Promise.race([answer, new Promise((resolve) => setTimeout(resolve, STOP_MS, null))]);
  }

  close() {
    return this.context.close();
  }
}

class ScheduledPlayer {
  constructor(context, onReport) {
    this.kind = "scheduled";
    this.context = context;
    this.rate = context.sampleRate;
    this.onReport = onReport;
    this.gain = context.createGain();
    this.gain.connect(context.destination);
    this.tapped = null;
    this.cushion = CUSHION_S;
    this.underruns = this.gaps = 0;
    this.reset();
  }

  async open() {
    this.timer = setInterval(() => this.report(), 250);
  }

  reset() {
    for (const { source } of this.scheduled ?? []) source.stop();
    this.scheduled = []; // {at, generation, first, length, source}, in order
    this.waiting = []; // chunks that wait for the cushion
    this.taken = 0;
    this.time = 0; // when the next buffer begins
    this.last = { generation: -1, first: 0, length: 0, ended: true };
    this.heard = { generation: 0, sample: -1 };
  }

  push(chunk) {
    if (chunk.gap) this.gaps += 1;
    this.waiting.push(chunk);
    const ahead = this.time - this.context.currentTime;
    const late = ahead < 0;
    const begins = late || this.last.ended; // an utterance, behind a cushion of its own
    const waits = this.waiting.reduce((sum, one) => sum + one.samples.length, 0) / this.rate;
    if (begins && waits + Math.max(0, ahead) < this.cushion && !chunk.last) return;
    if (late) this.begin();
    for (const one of this.waiting) this.schedule(one);
    this.waiting = [];
  }

  /** Begin after silence, behind a cushion; it is an underrun if an utterance goes on. */
  begin() {
    const next = this.waiting.find((one) => one.samples.length);
    if (next && !this.last.ended && next.generation === this.last.generation) {
      this.underruns += 1;
      const missing = Math.max(this.context.currentTime - this.time, STEP_LEAST_S);
      this.cushion = Math.min(this.cushion + Math.min(missing, STEP_MOST_S), CUSHION_MOST_S);
    }
    this.time = this.context.currentTime + 0.02;
  }

  schedule({ generation, first, last, samples }) {
    this.last = { generation, ended: last };
    if (!samples.length) return;
    const buffer = this.context.createBuffer(1, samples.length, this.rate);
    buffer.copyToChannel(Float32Array.from(samples, (value) => value * SCALE), 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.gain);
    source.start(this.time);
    this.scheduled.push({ at: this.time, generation, first, length: samples.length, source });
    this.tapped?.push({ played: buffer.getChannelData(0), time: this.time });
    this.time += samples.length / this.rate;
  }

  /** Count what has been heard by now. */
  advance() {
    const now = this.context.currentTime - latencySamples(this.context) / this.rate;
    while (this.scheduled.length && this.scheduled[0].at + this.scheduled[0].length / this.rate <= now) {
      const { generation, first, length } = this.scheduled.shift();
      this.heard = { generation, sample: first + length - 1 };
      this.taken += length;
    }
    const [playing] = this.scheduled;
    if (!playing || playing.at > now) return;
    this.heard = { generation: playing.generation, sample: playing.first + Math.floor((now - playing.at) * this.rate) };
  }

  report() {
    this.advance();
    const waits = this.waiting.reduce((sum, one) => sum + one.samples.length, 0) / this.rate;
    const buffered = Math.max(0, this.time - this.context.currentTime) + waits;
    this.onReport({
      ...this.heard, taken: this.taken, buffered_ms: Math.round(buffered * 1000),
      cushion_ms: Math.round(this.cushion * 1000), underruns: this.underruns, gaps: this.gaps, playing: buffered > 0,
    });
  }

  /** The server's cushion; one that has grown stays. */
  collect(seconds) {
    if (!this.underruns) this.cushion = seconds;
  }

  flush(generation) {
    if (this.last.generation <= generation) this.silence();
  }

  /** Fade out, drop everything that waits, and be ready for more. */
  silence() {
    const now = this.context.currentTime;
    this.gain.gain.setValueAtTime(1, now);
    this.gain.gain.linearRampToValueAtTime(0, now + FADE_S);
    this.gain.gain.setValueAtTime(1, now + FADE_S + 0.001);
    this.advance();
    for (const { at, length, source } of this.scheduled) {
      source.stop(now + FADE_S);
      this.taken += length;
      if (at <= now) this.heard.sample += Math.round(FADE_S * this.rate);
    }
    this.taken += this.waiting.reduce((sum, one) => sum + one.samples.length, 0);
    this.scheduled = this.waiting = [];
    this.time = 0;
    this.last.ended = true;
  }

  tap() {
    this.tapped = [];
  }

  async stop() {
    this.silence();
    return this.heard;
  }

  close() {
    clearInterval(this.timer);
    return this.context.close();
  }
}
