/* What is heard: a ring of samples in the audio thread, behind a cushion.
 *
 * Playing begins when the cushion is full, or the utterance has ended. If samples are missing, the cushion grows, and is filled
 * anew. A gap is an underrun only if more samples of the same utterance follow: its end is none. Every sample has its
 * generation and index, so that what was heard is known exactly.
 */

const CAPACITY_S = 8; // the server sends at most 2 s ahead
const CUSHION_S = 0.08; // until the server says another
const STEP_LEAST_S = 0.04; // the cushion grows by as much as was missing, within these
const STEP_MOST_S = 0.2;
const CUSHION_MOST_S = 1;
const FADE_S = 0.015;
const REPORT_S = 0.25;
const SCALE = 1 / 32767;

class Ring extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(CAPACITY_S * sampleRate);
    this.written = 0; // samples pushed so far
    this.read = 0; // samples taken so far, played or dropped
    this.marks = []; // {at, generation, first, last}: what begins at position `at`
    this.playing = false;
    this.starved = -1; // the generation in which samples are missing, until it is known whether more follow
    this.starved_at = 0;
    this.cushion = CUSHION_S * sampleRate;
    this.underruns = 0;
    this.gaps = 0;
    this.fade = 0; // samples of a fade that are left
    this.stopping = null;
    this.heard = { generation: 0, sample: -1, frame: 0 };
    this.reported = 0;
    this.tap = false;
    this.port.onmessage = ({ data }) => this[data.do](data);
  }

  push({ generation, first, last, gap, samples }) {
    if (generation === this.starved && samples.length) this.miss();
    if (samples.length || last) this.starved = -1;
    if (gap) this.gaps += 1;
    const room = this.samples.length - (this.written - this.read);
    const kept = samples.length > room ? samples.subarray(0, room) : samples; // cannot be, within the credit
    this.marks.push({ at: this.written, generation, first, last });
    const at = this.written % this.samples.length;
    const head = Math.min(kept.length, this.samples.length - at);
    this.samples.set(kept.subarray(0, head), at);
    this.samples.set(kept.subarray(head), 0);
    this.written += kept.length;
  }

  /** The utterance goes on after a gap. */
  miss() {
    this.underruns += 1;
    const missing = Math.max(currentFrame - this.starved_at, STEP_LEAST_S * sampleRate);
    this.cushion = Math.min(this.cushion + Math.min(missing, STEP_MOST_S * sampleRate), CUSHION_MOST_S * sampleRate);
  }

  /** Fade out, and drop what waits of a generation and of those before it. */
  flush({ generation }) {
    if (this.mark() && this.mark().generation <= generation) this.begin_fade({ generation });
    else this.drop(generation);
  }

  /** Barge-in: fade out, drop everything, and say what was heard last. */
  stop() {
    this.begin_fade({ generation: Infinity, answer: true });
  }

  reset() {
    this.drop(Infinity);
    this.fade = 0;
    this.stopping = null;
    this.heard = { generation: 0, sample: -1, frame: currentFrame };
    this.written = this.read = 0;
    this.reported = 0;
  }

  /** The server's cushion; one that has grown stays. */
  collect({ seconds }) {
    if (!this.underruns) this.cushion = seconds * sampleRate;
  }

  listen_in({ on }) {
    this.tap = on;
  }

  begin_fade(stopping) {
    this.stopping = stopping;
    this.fade = this.playing ? Math.round(FADE_S * sampleRate) : 0;
    if (!this.fade) this.end_fade();
  }

  end_fade() {
    const { generation, answer } = this.stopping;
    this.stopping = null;
    this.drop(generation);
    if (answer) this.port.postMessage({ stopped: { ...this.heard } });
  }

  drop(generation) {
    while (this.mark() && this.mark().generation <= generation) {
      this.read = this.marks.length > 1 ? this.marks[1].at : this.written;
      this.marks.shift();
    }
    this.playing = false;
    this.starved = -1;
  }

  /** The mark of the sample that is read next; undefined if nothing was ever pushed. */
  mark() {
    while (this.marks.length > 1 && this.marks[1].at <= this.read) this.marks.shift();
    return this.marks[0];
  }

  process(_, [[out]]) {
    if (!this.playing && this.may_begin()) this.playing = true;
    if (this.playing) this.play(out);
    if (currentFrame - this.reported >= REPORT_S * sampleRate) this.report();
    return true;
  }

  /** Whether the cushion is full, or everything of the utterance is here. */
  may_begin() {
    const waiting = this.written - this.read;
    if (!waiting) return false;
    const { generation } = this.mark();
    return waiting >= this.cushion || this.marks.some((mark) => mark.last && mark.generation === generation);
  }

  /** Where the utterance that is played ends, as far as it is here. */
  end() {
    const { generation } = this.mark();
    const next = this.marks.find((mark) => mark.generation !== generation);
    return next ? next.at : this.written;
  }

  play(out) {
    const n = Math.min(out.length, this.end() - this.read, this.stopping ? this.fade : out.length);
    const whole = Math.round(FADE_S * sampleRate);
    for (let i = 0; i < n; i++) {
      const value = this.samples[(this.read + i) % this.samples.length] * SCALE;
      out[i] = this.stopping ? (value * (this.fade - i)) / whole : value;
    }
    if (this.tap && n) this.port.postMessage({ played: out.slice(0, n), at: this.read });
    this.advance(n);
    if (this.stopping) {
      this.fade -= n;
      if (!this.fade || n < out.length) this.end_fade();
    } else if (n < out.length || this.at_next()) this.run_dry();
  }

  advance(n) {
    if (!n) return;
    this.read += n - 1;
    const mark = this.mark();
    this.heard = { generation: mark.generation, sample: mark.first + this.read - mark.at, frame: currentFrame + n };
    this.read += 1;
  }

  /** Whether another utterance begins here; it waits for a cushion of its own. */
  at_next() {
    const { generation } = this.marks[0];
    return this.marks.find((mark) => mark.generation !== generation)?.at === this.read;
  }

  /** The utterance ends here, or the next samples of it are not here in time. */
  run_dry() {
    this.playing = false;
    const { generation } = this.marks[0];
    const ended = this.read < this.written || this.marks.some((mark) => mark.last && mark.generation === generation);
    if (ended) return;
    this.starved = generation;
    this.starved_at = currentFrame;
  }

  report() {
    this.reported = currentFrame;
    this.port.postMessage({
      report: {
        ...this.heard,
        now: currentFrame,
        taken: this.read,
        buffered_ms: Math.round(((this.written - this.read) / sampleRate) * 1000),
        cushion_ms: Math.round((this.cushion / sampleRate) * 1000),
        underruns: this.underruns,
        gaps: this.gaps,
        playing: this.playing,
      },
    });
  }
}

registerProcessor("ring", Ring);
