"use strict";
// The page looks and commands; it never holds the loop: what it misses is gone.

const $ = id => document.getElementById(id);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = x => x === null || !Number.isFinite(x) ? "–"
  : x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(2) : String(Number(x.toPrecision(4)));
const time = s => s === null || s === undefined ? "–" : s < 1e-3 ? (s * 1e6).toFixed(0) + " µs"
  : s < 1 ? (s * 1e3).toFixed(2) + " ms" : s.toFixed(2) + " s";

let about, state, trail = [], extent = [], emergency = false;

async function command(body) {
  try {
    const answer = await fetch("command", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (!answer.ok) link(await answer.text(), true);
  } catch {
    link("the program does not answer", true);
  }
}
function link(text, lost = false) {
  $("link").textContent = text;
  $("link").classList.toggle("lost", lost);
}

// --- the decoded state ---------------------------------------------------------------------------------------------
function showHold() {
  const box = $("hold");
  box.hidden = !state.hold;
  if (state.hold) box.textContent = "The output is held: " + state.hold + ".";
  emergency = state.emergency;
  $("emergency").setAttribute("aria-pressed", emergency);
  $("emergency").firstChild.textContent = emergency ? "Go on " : "Emergency stop ";
}
function fitCanvas(canvas) {
  const scale = window.devicePixelRatio || 1, w = Math.round(canvas.clientWidth * scale), h = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const g = canvas.getContext("2d");
  g.setTransform(1, 0, 0, 1, 0, 0);
  g.clearRect(0, 0, w, h);
  return [g, w, h, scale];
}
function drawCursor() {
  const [g, w, h, scale] = fitCanvas($("cursor"));
  const a = +$("across").value, u = +$("up").value;
  if (!state || !(a < state.v.length) || !(u < state.v.length)) return;
  const span = Math.max(extent[a] || 0, extent[u] || 0) * 1.15 || 1, unit = Math.min(w, h) / 2 / span;
  const x = v => w / 2 + v * unit, y = v => h / 2 - v * unit;
  g.lineWidth = scale;
  g.strokeStyle = css("--line");
  g.beginPath();
  g.moveTo(x(0), 0); g.lineTo(x(0), h); g.moveTo(0, y(0)); g.lineTo(w, y(0));
  g.stroke();
  g.fillStyle = css("--soft");
  g.font = 12 * scale + "px system-ui";
  g.fillText(number(span) + (about.units[a] ? " " + about.units[a] : ""), w - 80 * scale, h / 2 - 6 * scale);
  g.strokeStyle = css("--accent");
  g.lineCap = "round";
  for (let k = 1; k < trail.length; ++k) {
    g.globalAlpha = 0.6 * k / trail.length;
    g.lineWidth = 2 * scale;
    g.beginPath();
    g.moveTo(x(trail[k - 1][a]), y(trail[k - 1][u]));
    g.lineTo(x(trail[k][a]), y(trail[k][u]));
    g.stroke();
  }
  g.globalAlpha = 1;
  const v = state.v, sa = state.sd[a], su = state.sd[u];
  if (v[a] === null || v[u] === null) return;
  if (sa > 0 && su > 0) {
    const c = state.c01 !== null && a + u === 1 && a !== u ? state.c01 : 0;
    const half = (sa * sa + su * su) / 2, root = Math.hypot((sa * sa - su * su) / 2, c);
    const angle = 0.5 * Math.atan2(2 * c, sa * sa - su * su);
    g.fillStyle = css("--accent-soft");
    g.beginPath();
    g.ellipse(x(v[a]), y(v[u]), 2 * Math.sqrt(half + root) * unit, 2 * Math.sqrt(Math.max(half - root, 0)) * unit, -angle, 0, 7);
    g.fill();
  }
  g.fillStyle = state.hold ? css("--bad") : css("--accent");
  g.beginPath();
  g.arc(x(v[a]), y(v[u]), 7 * scale, 0, 7);
  g.fill();
  drawClick(g, x(v[a]), y(v[u]), scale);
}
function showValues() {
  const body = $("values").tBodies[0];
  while (body.rows.length < about.rows.length) {
    const row = body.insertRow();
    row.insertCell().textContent = about.rows[body.rows.length - 1] + (about.units[body.rows.length - 1] ? " [" + about.units[body.rows.length - 1] + "]" : "");
    row.insertCell().className = "n";
    row.insertCell().className = "n";
  }
  state.v.forEach((v, i) => {
    body.rows[i].cells[1].textContent = number(v);
    body.rows[i].cells[2].textContent = number(state.sd[i]);
  });
}
let clickedAt = -1e9;
/// A ring that grows from the cursor and fades.
function drawClick(g, x, y, scale) {
  const since = (performance.now() - clickedAt) / 600;
  if (since >= 1) return;
  g.globalAlpha = 1 - since;
  g.strokeStyle = css("--good");
  g.lineWidth = 3 * scale;
  g.beginPath();
  g.arc(x, y, (10 + 18 * since) * scale, 0, 7);
  g.stroke();
  g.globalAlpha = 1;
}
function onState(s) {
  if (state && s.clicks > state.clicks) clickedAt = performance.now();
  state = s;
  s.v.forEach((v, i) => { if (v !== null) extent[i] = Math.max(extent[i] || 0, Math.abs(v)); });
  if (s.frames && s.v.every(v => v !== null)) trail.push(s.v);
  if (trail.length > 150) trail.shift();
  if (s.task) onTask(s.task);
}

// --- the task ------------------------------------------------------------------------------------------------------
let shown = "", flash = { at: -1e9, good: true }, before, way = [];
const started = () => state?.task && state.task.phase !== "waiting" && state.task.phase !== "done";

function onTask(t) {
  if (before) {
    const good = t.acquired > before.acquired;
    if (good || t.late > before.late || t.wrong > before.wrong) flash = { at: performance.now(), good, target: before.target };
  }
  way.push([t.x, t.y]);
  if (way.length > 40) way.shift();
  before = { ...t, target: t.target ?? before?.target };
}
function drawArena() {
  const t = state?.task;
  if (!t) return;
  const [g, w, h, scale] = fitCanvas($("arena"));
  const span = about.task.extent * 1.12, unit = Math.min(w, h) / 2 / span, x = v => w / 2 + v * unit, y = v => h / 2 - v * unit;
  const shape = (s, grow = 1) => {
    g.beginPath();
    if (s.square) g.rect(x(s.x - s.half * grow), y(s.y + s.half * grow), 2 * s.half * unit * grow, 2 * s.half * unit * grow);
    else g.arc(x(s.x), y(s.y), s.half * unit * grow, 0, 7);
  };
  g.lineWidth = scale;
  g.strokeStyle = css("--line");
  if (about.task.keys) {
    const n = about.task.keys, half = about.task.side / 2;
    g.beginPath();
    for (let k = 0; k <= n; ++k) {
      const at = -half + about.task.side * k / n;
      g.moveTo(x(at), y(-half)); g.lineTo(x(at), y(half));
      g.moveTo(x(-half), y(at)); g.lineTo(x(half), y(at));
    }
    g.stroke();
  }
  const since = (performance.now() - flash.at) / 400;
  if (since < 1 && flash.target) {
    g.globalAlpha = 1 - since;
    g.strokeStyle = css(flash.good ? "--good" : "--bad");
    g.lineWidth = 3 * scale;
    shape(flash.target, 1 + 0.5 * since);
    g.stroke();
    g.globalAlpha = 1;
  }
  if (t.target) {
    g.fillStyle = css("--target");
    shape(t.target);
    g.fill();
    // how much of the hold is over
    if (about.task.dwell && about.task.hold_s > 0 && t.held > 0 && !t.target.square) {
      g.strokeStyle = css("--good");
      g.lineWidth = 4 * scale;
      g.beginPath();
      g.arc(x(t.target.x), y(t.target.y), t.target.half * unit + 5 * scale, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * Math.min(1, t.held / about.task.hold_s));
      g.stroke();
    }
  }
  g.strokeStyle = css("--accent");
  g.lineCap = "butt";
  g.lineWidth = 3 * scale;
  for (let k = 1; k < way.length; ++k) {
    g.globalAlpha = 0.45 * k / way.length;
    g.beginPath();
    g.moveTo(x(way[k - 1][0]), y(way[k - 1][1]));
    g.lineTo(x(way[k][0]), y(way[k][1]));
    g.stroke();
  }
  g.globalAlpha = 1;
  g.fillStyle = state.hold ? css("--bad") : css("--cursor");
  g.strokeStyle = css("--card");
  g.lineWidth = 2 * scale;
  g.beginPath();
  g.arc(x(t.x), y(t.y), 8 * scale, 0, 7);
  g.fill();
  g.stroke();
  drawClick(g, x(t.x), y(t.y), scale);
}
function showTask() {
  const t = state?.task;
  if (!t) return;
  const n = t.acquired + t.late + t.wrong;
  const phase = { waiting: state.emergency ? "stopped" : "waiting: press s", pause: "between trials", reach: "reach", done: "done" }[t.phase];
  const note = t.calibrating ? `Calibrating: ${Math.round(100 * t.assist)} % help, fitted anew ${t.fits} times.`
    : t.fits ? `Fitted anew ${t.fits} times.` : "";
  const key = [n, t.acquired, t.bits.toFixed(2), t.last, phase, note].join();
  if (key === shown) return;
  shown = key;
  $("score_success").textContent = n ? Math.round(100 * t.acquired / n) + " %" : "–";
  $("score_bits").textContent = n ? t.bits.toFixed(2) : "–";
  $("score_last").textContent = t.last > 0 ? t.last.toFixed(2) + " s" : "–";
  $("score_trials").textContent = n;
  $("task_state").textContent = phase;
  $("task_note").textContent = note;
  $("start").firstChild.textContent = started() ? "Pause " : "Start ";
  $("start").disabled = t.phase === "done";
  $("recalibrate").disabled = t.calibrating;
}

// --- the signal ----------------------------------------------------------------------------------------------------
const kColumns = 400;
let signal = { input: 0, rows: 0, columns: [], mean: [], spread: [], channel: 0 }, scope;

// counts of spikes: of the node that finds them, else of an input that holds nothing else
const kRaster = 8;
let spikes = { rows: 0, columns: [], counts: true };

function onSpikes(frames) {
  for (const frame of frames) {
    if (frame.length !== spikes.rows) spikes = { rows: frame.length, columns: [], counts: true };
    spikes.counts &&= frame.every(x => x === null || (x >= 0 && Number.isInteger(x)));
    spikes.columns.push(frame);
  }
  if (spikes.columns.length > kColumns) spikes.columns.splice(0, spikes.columns.length - kColumns);
}
function drawSpikes() {
  const n = spikes.rows, found = about.raster !== undefined;
  $("spikes").hidden = !n || !(found || spikes.counts);
  if ($("spikes").hidden) return;
  const canvas = $("spikes").querySelector("canvas"), from = kColumns - spikes.columns.length;
  canvas.width = kColumns;
  canvas.height = n;
  const g = canvas.getContext("2d"), image = g.createImageData(kColumns, n), ink = css("--ink");
  const [r, green, b] = [1, 3, 5].map(k => parseInt(ink.slice(k, k + 2), 16));
  spikes.columns.forEach((frame, k) => frame.forEach((x, i) => {
    if (x) image.data.set([r, green, b, 255 * (1 - 0.6 ** x)], 4 * (i * kColumns + from + k));
  }));
  g.putImageData(image, 0, 0);
  const source = found ? about.raster : about.inputs[+$("input").value], rate = found ? source.rate_hz : Math.min(source.rate_hz, 100);
  $("spikes").firstElementChild.textContent = `Spikes of ${n} channels of ${source.name}, the last ${number(kColumns / rate)} s`;
}

function onSignal(s) {
  if (s.input === kRaster) onSpikes(s.frames);
  else if (!about.raster && s.input === +$("input").value) onSpikes(s.frames);
  if (s.input !== +$("input").value) return;
  for (const frame of s.frames) {
    if (frame.length !== signal.rows) signal = { ...signal, rows: frame.length, columns: [], mean: frame.map(x => x ?? 0), spread: frame.map(() => 1e-12) };
    frame.forEach((x, i) => {
      if (x === null) return;
      signal.mean[i] += 0.01 * (x - signal.mean[i]);
      signal.spread[i] += 0.01 * ((x - signal.mean[i]) ** 2 - signal.spread[i]);
    });
    signal.columns.push(frame);
  }
  if (signal.columns.length > kColumns) signal.columns.splice(0, signal.columns.length - kColumns);
}
function drawRaster() {
  const canvas = $("raster"), n = signal.rows;
  if (!n) return;
  canvas.width = kColumns;
  canvas.height = n;
  const g = canvas.getContext("2d"), image = g.createImageData(kColumns, n), dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const from = kColumns - signal.columns.length;
  signal.columns.forEach((frame, k) => frame.forEach((x, i) => {
    const at = 4 * (i * kColumns + from + k);
    if (x === null) { image.data.set([198, 47, 47, 110], at); return; }
    const z = Math.max(-1, Math.min(1, (x - signal.mean[i]) / Math.sqrt(signal.spread[i]) / 3));
    // blue below a channel's mean, orange above
    image.data.set(z < 0 ? [60, 120, 220, -255 * z] : [dark ? 255 : 220, dark ? 180 : 110, 20, 255 * z], at);
  }));
  g.putImageData(image, 0, 0);
}
function drawScope() {
  const xs = signal.columns.map((_, k) => k - signal.columns.length), ys = signal.columns.map(f => f[signal.channel] ?? null);
  const name = about.inputs[+$("input").value].rows[signal.channel] ?? "";
  if (!scope || scope.name !== name) {
    if (scope) scope.plot.destroy();
    scope = { name, plot: new uPlot({
      width: $("scope").clientWidth, height: 130, legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false } },
      axes: [{ show: false }, { stroke: css("--soft"), grid: { stroke: css("--line") }, size: 60, label: name, labelSize: 18 }],
      series: [{}, { stroke: css("--accent"), width: 1.5, spanGaps: false }],
    }, [xs, ys], $("scope")) };
  } else scope.plot.setData([xs, ys]);
}

// --- health, latency, counters ---------------------------------------------------------------------------------------
function showChannels(states) {
  const box = $("channels"), input = +$("input").value, names = about.inputs[input].rows;
  const list = states[input];
  if (box.childElementCount !== list.length || box.dataset.input !== String(input)) {
    box.replaceChildren(...list.map((_, i) => {
      const b = document.createElement("button");
      b.textContent = i;
      b.addEventListener("click", () => command({ do: b.classList.contains("by_hand") ? "unmask" : "mask", input: +$("input").value, row: i }));
      b.addEventListener("mouseenter", () => { signal.channel = i; });
      b.addEventListener("focus", () => { signal.channel = i; });
      return b;
    }));
    box.dataset.input = input;
  }
  list.forEach((s, i) => {
    const b = box.children[i], word = s.replace(" ", "_");
    if (b.className !== word) b.className = word;
    const title = names[i] + ": " + s;
    if (b.title !== title) { b.title = title; b.setAttribute("aria-label", title); }
  });
}
let histogram;
function showLatency(bins) {
  if (!bins.length) return;
  const data = [bins.map(b => b[0] * 1e6), bins.map(b => b[1])];
  if (histogram) { histogram.setData(data); return; }
  histogram = new uPlot({
    width: $("histogram").clientWidth, height: 170, legend: { show: false },
    scales: { x: { time: false, distr: 3 }, y: { range: (_, lo, hi) => [0, hi * 1.05] } },
    axes: [{ stroke: css("--soft"), grid: { show: false }, label: "µs", labelSize: 18, size: 34 }, { stroke: css("--soft"), grid: { stroke: css("--line") }, size: 60, label: "packets", labelSize: 18 }],
    series: [{}, { stroke: css("--accent"), fill: css("--accent-soft"), paths: uPlot.paths.bars({ size: [0.9, 30] }), points: { show: false } }],
  }, data, $("histogram"));
}
function showStages(report) {
  const rows = [["until it is taken", report.waited], ...Object.entries(report.nodes ?? {}), ["all of it", report.latency]];
  $("stages").tBodies[0].replaceChildren(...rows.filter(([, t]) => t?.count).map(([name, t]) => {
    const row = document.createElement("tr");
    row.insertCell().textContent = name;
    for (const key of ["p50_s", "p99_s", "p99.9_s", "max_s"]) {
      const cell = row.insertCell();
      cell.className = "n";
      cell.textContent = time(t[key]);
    }
    return row;
  }));
}
const kLosses = ["missing_frames", "late_packets", "refused_packets", "malformed", "foreign", "lost_in_system", "lost_events"];
function showCounters(report) {
  const inputs = Object.entries(report.inputs);
  $("counters").replaceChildren(...inputs.flatMap(([name, input]) => {
    const title = document.createElement("h3"), list = document.createElement("dl");
    title.textContent = `${name}: ${input.device}${input.trouble ? " (" + input.trouble + ")" : ""}`;
    for (const [key, value] of Object.entries(input)) {
      if (typeof value !== "number") continue;
      const pair = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = key.replaceAll("_", " ");
      dd.textContent = value;
      pair.classList.toggle("loss", kLosses.includes(key) && value > 0);
      pair.append(dt, dd);
      list.append(pair);
    }
    return [title, list];
  }));
  const clocks = inputs.filter(([, i]) => i.clock).map(([name, i]) => [`clock of ${name}`, `${(i.clock.drift * 1e6).toFixed(1)} ppm, ± ${time(i.clock.residual_s)}${i.clock.holding ? ", held" : ""}`]);
  const figures = [
    ["states", report.decoded_frames], ["recording time", report.time_s.toFixed(2) + " s"],
    ["data are", state ? time(state.age) + " old" : "–"],
    ["p50 / p99 / max", [report.latency.p50_s, report.latency["p99_s"], report.latency.max_s].map(time).join(" / ")],
    ["later than the deadline", report.deadline_misses], ["held frames", report.held_frames], ["at a limit", report.limited_frames],
    ...("clicks" in report ? [["clicks", report.clicks + " sent, " + report.held_clicks + " kept back"]] : []), ...clocks,
  ];
  if (report.recorder) figures.push(["recorded", (report.recorder.bytes / 1e6).toFixed(1) + " MB, " + report.recorder.lost_records + " records lost" + (report.recorder.trouble ? ": " + report.recorder.trouble : "")]);
  for (const o of report.outputs ?? []) figures.push([o.device, `${o.sent} sent, ${o.lost} lost`]);
  $("figures").replaceChildren(...figures.flatMap(([k, v]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = k;
    dd.textContent = v;
    return [dt, dd];
  }));
}

function frame() {
  if (state) {
    drawCursor();
    drawArena();
    showTask();
    showValues();
    showHold();
  }
  requestAnimationFrame(frame);
}

async function begin() {
  about = await (await fetch("about")).json();
  $("about").textContent = `${about.name}: ${about.node}, ${about.inputs.map(i => `${i.rows.length} channels of ${i.name} at ${number(i.rate_hz)} Hz`).join(", ")}`;
  document.title = "percept live: " + about.name;
  for (const [id, at] of [["across", 0], ["up", Math.min(1, about.rows.length - 1)]]) {
    $(id).replaceChildren(...about.rows.map((name, i) => new Option(name, i)));
    $(id).value = at;
    $(id).addEventListener("change", () => { trail = []; });
  }
  $("input").replaceChildren(...about.inputs.map((input, i) => new Option(input.name, i)));
  if (about.task) {
    $("task").hidden = false;
    document.body.classList.add("with_task");
    $("task_name").textContent = { centre_out: "Centre-out", fitts: "Fitts", grid: "Grid" }[about.task.use];
    $("recalibrate").hidden = !about.task.calibration;
    $("start").addEventListener("click", () => command({ do: started() ? "pause" : "start" }));
    $("recalibrate").addEventListener("click", () => command({ do: "recalibrate" }));
  }
  $("emergency").addEventListener("click", () => command({ do: emergency ? "release" : "emergency" }));
  $("stop").addEventListener("click", () => command({ do: "stop" }));
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.altKey || e.metaKey || e.target.tagName === "SELECT") return;
    if (e.key === " ") {
      e.preventDefault();  // also on a focused button: space stops, whatever has the focus
      command({ do: emergency ? "release" : "emergency" });
    } else if (e.key === "q") command({ do: "stop" });
    else if (e.key === "s" && about.task) command({ do: started() ? "pause" : "start" });
    else if (e.key === "r" && about.task?.calibration) command({ do: "recalibrate" });
  });
  const events = new EventSource("stream");
  events.addEventListener("open", () => link("connected"));
  events.addEventListener("error", () => link(document.body.dataset.ended ? "the session has ended" : "no connection to the program", !document.body.dataset.ended));
  events.addEventListener("state", e => onState(JSON.parse(e.data)));
  events.addEventListener("signal", e => onSignal(JSON.parse(e.data)));
  events.addEventListener("report", e => {
    const r = JSON.parse(e.data);
    showCounters(r.report);
    showChannels(r.channels);
    showLatency(r.latency_bins);
    showStages(r.report);
    if (r.report.finished && r.report.decoded_frames) {
      document.body.dataset.ended = "yes";
      link("the session has ended");
      events.close();
    }
  });
  setInterval(() => { if (!document.hidden) { drawRaster(); drawScope(); drawSpikes(); } }, 100);
  // plots keep the colours they were made with
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (scope) scope.plot.destroy();
    if (histogram) histogram.destroy();
    scope = histogram = undefined;
  });
  addEventListener("resize", () => {
    if (scope) scope.plot.setSize({ width: $("scope").clientWidth, height: 130 });
    if (histogram) histogram.setSize({ width: $("histogram").clientWidth, height: 170 });
  });
  requestAnimationFrame(frame);
}
begin();
