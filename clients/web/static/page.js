/* The page: connects, shows the figures, and hears one thing at a time: a stream, or what it has said itself. */

import { Link } from "/static/link.js";
import { Plot } from "/static/plot.js";
import { openPlayer } from "/static/sound.js";
import { figure, noticesOf, showOptions, showRoles, showStages, showStreams, showVoices } from "/static/tables.js";

const KEY = "glowd-token";
const STALE_MS = 3000;
const at = (id) => document.getElementById(id);

const link = new Link();
const plot = new Plot(at("plot"), at("plot-top"));
const state = {
  streams: {},
  rates: {}, // voice -> sample rate
  player: null,
  hearing: null, // {id, stream, said, listening, report}: what this page hears, or wants to hear again
  nextId: 1,
  snapshotAt: 0,
};
globalThis.glowd = state; // for the console, and for tests

// ---- the token

function token() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(KEY, found);
    history.replaceState(null, "", location.pathname); // it shall not be seen over a shoulder
  }
  return sessionStorage.getItem(KEY);
}

function start() {
  const known = token();
  at("token-section").hidden = Boolean(known);
  if (known) link.connect(known);
  else at("headline").textContent = "Not connected";
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("token").value.trim());
  at("token").value = "";
  start();
});

link.addEventListener("refused", () => {
  sessionStorage.removeItem(KEY);
  start();
  at("token").focus();
});

// ---- what this page hears

function say(sentence) {
  at("status").textContent = sentence;
}

/** Begin to hear something, in place of what is heard. Call it in a click: browsers start sound only then. */
async function hear(what) {
  const rate = state.rates[what.voice] ?? Object.values(state.rates)[0] ?? 22050;
  let player = null;
  const opening = openPlayer(rate, (report) => { if (player && player === state.player) onReport(report); });
  say("Starting …");
  player = await opening;
  while (state.hearing) await silence(); // what was heard before, and what another click has begun meanwhile
  state.player = player;
  state.hearing = { ...what, id: state.nextId++, report: null, received: 0 };
  showSound();
  request();
}

/** Ask the web process for what this page wants to hear. */
function request() {
  const { hearing, player } = state;
  if (hearing.said) link.send("say", { id: hearing.id, text: hearing.text, voice: hearing.voice, rate_hz: player.rate });
  else link.send("listen", { id: hearing.id, stream: hearing.stream, rate_hz: player.rate });
}

function onReport(report) {
  const { hearing } = state;
  if (!hearing) return;
  hearing.report = report;
  const { taken, generation, sample, buffered_ms, underruns } = report;
  link.send("report", { id: hearing.id, taken, generation, sample, buffered_ms, underruns });
  showSound();
  if (hearing.spoken && taken >= hearing.received && !report.playing) finish(); // an older report may come after the end
}

/** What was said has been heard to its end. */
async function finish() {
  const { received, report } = state.hearing;
  state.last = { received, sample: report.sample };
  say(`Spoken, to sample ${state.hearing.report.sample}.`);
  await silence();
}

async function silence() {
  const { player } = state;
  state.player = state.hearing = null;
  showSound();
  await player?.close();
}

/** Barge-in: silence at once, then the exact position to the web process. */
async function stop() {
  const { hearing, player } = state;
  if (!hearing || !player) return;
  hearing.stopped = true;
  const heard = (await player.stop()) ?? hearing.report ?? { generation: 0, sample: -1 };
  link.send("stop", { id: hearing.id, generation: heard.generation, sample: heard.sample });
  say(hearing.said ? `Stopped after sample ${heard.sample} (${(Math.max(heard.sample, 0) / player.rate).toFixed(2)} s).` : `No longer listening to ${hearing.stream}.`);
  hearing.heard = heard;
  state.last = { ...heard, rate: player.rate, received: hearing.received };
  if (state.hearing === hearing) await silence();
}

function act(action, stream) {
  if (action === "flush") link.send("flush", { id: state.nextId++, stream });
  else if (state.hearing?.stream === stream) stop();
  else hear({ stream, voice: state.streams[stream]?.voice }).catch(failed);
}

function failed(error) {
  say(`No sound: ${error.message}`);
  silence();
}

function showSound() {
  const { hearing, player } = state;
  const report = hearing?.report;
  at("sound-stream").textContent = hearing ? hearing.stream ?? "starting …" : "nothing";
  at("sound-buffered").textContent = report ? `${report.buffered_ms} ms` : "–";
  at("sound-cushion").textContent = report ? `${report.cushion_ms} ms` : "–";
  at("sound-sample").textContent = report && report.sample >= 0 ? `${report.sample} of utterance ${report.generation}` : "–";
  at("sound-underruns").textContent = report ? String(report.underruns) : "–";
  at("stop").disabled = !hearing;
  at("sound").dataset.kind = player?.kind ?? "";
  showStreams(at("streams"), state.streams, hearing?.stream, act);
}

link.addEventListener("audio", ({ detail: chunk }) => {
  const { hearing, player } = state;
  if (chunk.id !== hearing?.id || hearing.stopped) return;
  hearing.received += chunk.samples.length;
  player.push(chunk);
});

link.addEventListener("started", ({ detail }) => {
  if (detail.id !== state.hearing?.id) return;
  state.hearing.stream = detail.stream;
  state.hearing.lost = false;
  state.player?.collect(detail.cushion_ms / 1000);
  say(state.hearing.said ? "Speaking." : `Listening to ${detail.stream}.`);
  showSound();
});

link.addEventListener("ended", ({ detail: { id, how, generation, text } }) => {
  const { hearing } = state;
  if (id !== hearing?.id) return;
  if (how === "flushed") {
    state.player?.flush(generation);
    say(`${hearing.stream} was stopped.`);
  } else if (how === "spoken") hearing.spoken = true;
  else lose(text);
});

link.addEventListener("stopped", ({ detail: { stream, heard_sample, dropped_samples, generation } }) => {
  say(`${stream}: utterance ${generation} stopped after sample ${heard_sample}; ${dropped_samples} samples were dropped.`);
});

link.addEventListener("error", ({ detail: { id, text } }) => {
  say(text);
  if (id === state.hearing?.id) silence();
});

/** The daemon or the web process was lost. A stream is listened to again when it is back; what was being said is gone. */
function lose(text) {
  const { hearing } = state;
  if (!hearing) return;
  say(text);
  if (hearing.said) silence();
  else hearing.lost = true;
}

/** Listen again to the stream that was lost, once it is there. */
function comeBack() {
  const { hearing, player } = state;
  if (!hearing?.lost || !player || !state.streams[hearing.stream]) return;
  hearing.lost = false;
  hearing.id = state.nextId++;
  hearing.received = 0;
  player.reset();
  request();
}

// ---- the daemon

link.addEventListener("open", () => { at("headline").textContent = "Connected, waiting for figures …"; });

link.addEventListener("closed", ({ detail: { reason } }) => {
  lose("The connection to glowd was lost.");
  at("headline").textContent = reason || "glowd is away; trying again …";
});

link.addEventListener("voices", ({ detail: { voices } }) => {
  state.rates = Object.fromEntries(voices.map((voice) => [voice.name, voice.rate_hz]));
  const chosen = at("voice").value || voices.find((voice) => voice.default)?.name;
  showOptions(at("voice"), voices.map((voice) => voice.name), chosen);
});

link.addEventListener("figures", ({ detail: { snapshot } }) => {
  state.snapshotAt = performance.now();
  state.streams = snapshot.streams ?? {};
  const names = Object.keys(state.streams);
  at("headline").textContent =
    `${snapshot.state}, up ${figure(snapshot.uptime_s)} s, ${figure(snapshot.clients)} clients, ${names.length} of ${figure(snapshot.max_streams)} streams`;
  at("no-streams").hidden = names.length > 0;
  at("streams").hidden = !names.length;
  showStreams(at("streams"), state.streams, state.hearing?.stream, act);
  showVoices(at("voices"), snapshot.voices ?? {});
  showRoles(at("roles"), snapshot.roles ?? {});
  showNotices(noticesOf(snapshot));
  const ready = Object.entries(snapshot.voices ?? {}).filter(([, voice]) => voice.ready).map(([name]) => name);
  if (ready.some((name) => !(name in state.rates))) link.send("voices", {});
  plot.add(state.streams);
  showPlot();
  comeBack();
});

function showNotices(sentences) {
  const shown = [...at("notices").children].map((line) => line.textContent);
  if (shown.join("\n") === sentences.join("\n")) return;
  at("notices").replaceChildren(...sentences.map((sentence) => {
    const line = document.createElement("p");
    line.className = "notice";
    line.textContent = sentence;
    return line;
  }));
}

function showPlot() {
  const names = Object.keys(state.streams);
  showOptions(at("plotted"), names, at("plotted").value);
  const stream = at("plotted").value;
  plot.draw(stream);
  showStages(at("stages"), state.streams[stream]);
}

at("plotted").addEventListener("change", showPlot);

setInterval(() => {
  const age = performance.now() - state.snapshotAt;
  if (link.isOpen && state.snapshotAt && age > STALE_MS) {
    at("headline").textContent = `glowd has published no figures for ${Math.round(age / 1000)} s`;
  }
}, 1000);

// ---- speaking

at("speak-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (text) hear({ said: true, text, voice: at("voice").value }).catch(failed);
});

at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("speak-form").requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.hearing) stop();
});

at("stop").addEventListener("click", stop);

start();
