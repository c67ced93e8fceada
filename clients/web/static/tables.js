/* The daemon's figures as tables. A figure that was not measured is shown as "–", never as 0.
 *
 * Rows are kept from one snapshot to the next, and only what has changed is written: the focus stays where it is, and a screen
 * reader is not made to read everything again.
 */

export const STAGES = {
  client: "sent → received",
  transport: "→ engine",
  wait: "→ network begins",
  network: "→ network done",
  return: "→ sinks",
  device: "→ sounds",
};

const ABSENT = "–";

/** A number with some digits, "–" for none. */
export function figure(value, digits = 0, scale = 1) {
  return typeof value === "number" ? (value * scale).toFixed(digits) : ABSENT;
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Bring the rows of a table body up to date: `rows` is a list of [key, cells, class]; `build` makes the cells of a new row. */
function update(body, rows, build) {
  const keys = new Set(rows.map(([key]) => key));
  for (const row of [...body.rows]) if (!keys.has(row.dataset.key)) row.remove(); // first: a row that is moved loses the focus
  const found = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  rows.forEach(([key, cells, kind], position) => {
    const row = found.get(key) ?? build(key, cells.length);
    row.dataset.key = key;
    row.className = kind ?? "";
    if (body.rows[position] !== row) body.insertBefore(row, body.rows[position] ?? null);
    cells.forEach((value, column) => text(row.cells[column].lastElementChild ?? row.cells[column], value));
  });
}

/** A row whose first cell is its heading. `numbers`: the columns of numbers; `labels`: the headings of the columns. */
function plainRow(count, numbers, labels) {
  const row = document.createElement("tr");
  for (let column = 0; column < count; column++) {
    const cell = document.createElement(column ? "td" : "th");
    if (!column) cell.scope = "row";
    else cell.dataset.label = labels[column];
    if (numbers.includes(column)) cell.className = "number";
    row.append(cell);
  }
  return row;
}

function labelsOf(table) {
  return [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
}

/** The streams; `act(action, stream)` is called by their buttons, `heard` is the one that this page hears. */
export function showStreams(table, streams, heard, act) {
  const rows = Object.entries(streams).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, stream]) => {
    const gaps = stream.underruns ?? {};
    const cells = [
      name, stream.client || ABSENT, stream.state || ABSENT, stream.engine || stream.voice || ABSENT,
      figure(stream.ttfa_ms), figure(stream.rtf, 2), figure(stream.queue_frames), figure(stream.latency_ms),
      figure(stream.drift_ppm), figure(stream.behind_ms),
      `client ${figure(gaps.client)}, engine ${figure(gaps.engine)}, device ${figure(gaps.device)}`,
    ];
    return [name, cells, name === heard ? "heard" : ""];
  });
  const labels = labelsOf(table);
  update(table.tBodies[0], rows, (name, count) => {
    const row = plainRow(count, [4, 5, 6, 7, 8, 9], labels);
    const cell = row.insertCell();
    cell.className = "actions";
    cell.append(button("Listen", `Listen to ${name}`, () => act("listen", name)));
    cell.append(button("Stop", `Stop ${name} for everyone`, () => act("flush", name)));
    return row;
  });
  for (const row of table.tBodies[0].rows) {
    const [listen] = row.querySelectorAll("button");
    const on = String(row.dataset.key === heard);
    if (listen.getAttribute("aria-pressed") !== on) listen.setAttribute("aria-pressed", on);
  }
}

function button(label, name, onClick) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.setAttribute("aria-label", name);
  made.title = name;
  made.addEventListener("click", onClick);
  return made;
}

/** The stages of one stream. */
export function showStages(table, stream) {
  const rows = Object.entries(STAGES).map(([name, way]) => {
    const times = stream?.stages?.[name] ?? {};
    return [name, [name, way, figure(times.p50_ms, 1), figure(times.p99_ms, 1), figure(times.mean_ms, 1)]];
  });
  const total = stream?.stages?.total ?? {};
  rows.push(["total", ["sum", "", "", "", figure(total.mean_ms, 1)]]);
  update(table.tBodies[0], rows, (name, count) => {
    const row = plainRow(count, [2, 3, 4], labelsOf(table));
    const swatch = document.createElement("span");
    swatch.className = `swatch stage-${name}`;
    row.cells[0].append(swatch, document.createElement("span"));
    return row;
  });
}

/** The voices. */
export function showVoices(table, voices) {
  const rows = Object.entries(voices).map(([name, voice]) => {
    const degraded = voice.degraded ? ", degraded" : "";
    return [name, [
      name + (voice.default ? " (default)" : ""), (voice.state || (voice.ready ? "ready" : "away")) + degraded,
      `${figure(voice.open)}/${figure(voice.max_streams)}`, percent(voice.busy), percent(voice.late), figure(voice.level),
      figure(voice.audio_per_s, 2),
    ]];
  });
  update(table.tBodies[0], rows, (_, count) => plainRow(count, [2, 3, 4, 5, 6], labelsOf(table)));
}

function percent(value) {
  return typeof value === "number" ? `${figure(value, 0, 100)} %` : ABSENT;
}

/** The processes. */
export function showRoles(table, roles) {
  const rows = Object.entries(roles).map(([name, role]) => [name, [
    name, role.alive ? "alive" : "gone", figure(role.rss_bytes, 0, 1 / 2 ** 20), role.device || role.why_not || "",
  ], role.alive ? "" : "bad"]);
  update(table.tBodies[0], rows, (_, count) => plainRow(count, [2], labelsOf(table)));
}

/** What is wrong, in sentences. */
export function noticesOf(snapshot) {
  return Object.entries(snapshot.voices ?? {}).filter(([, voice]) => voice.degraded).map(([name, { degraded }]) => {
    const refuses = degraded.refuses ? " New streams are refused." : "";
    return `${name} is overloaded: level ${degraded.level} of ${degraded.last_level}, chunks of ${degraded.chunk_frames} frames.${refuses} ${degraded.reason}`;
  });
}

/** The options of a select, kept if they are the same. */
export function showOptions(select, names, chosen) {
  const now = [...select.options].map((option) => option.value);
  if (now.join("\n") !== names.join("\n")) select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (chosen !== undefined && names.includes(chosen)) select.value = chosen;
}
