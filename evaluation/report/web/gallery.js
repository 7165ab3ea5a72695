"use strict";
(() => {
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === false) continue;
      if (name === "class") node.className = value;
      else if (name === "text") node.textContent = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  };
  const short = (v, digits = 3) => (v === null || v === undefined || Number.isNaN(v) ? "–" : Number(v).toFixed(digits).replace(/^-/, "−"));

  // --- pixels: bytes in base64, one image after the other -------------------------------------------------------
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const [height, width] = data.shape, channels = data.channels || 1, size = height * width * channels;
  root.style.setProperty("--aspect", `${width} / ${height}`);
  const truth = bytes(data.truth);
  for (const r of data.reconstructions) {
    for (const part of ["decoded", "sd", "samples"]) if (r[part]) r[part] = bytes(r[part]);
    r.at = new Map(r.items.map((item, k) => [item, k]));
  }
  // matplotlib's inferno at nine points, for the spread
  const ramp = [[0, 0, 4], [33, 12, 74], [87, 16, 110], [136, 34, 106], [187, 55, 84], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];
  const heat = (v) => {
    const t = (v / 255) * (ramp.length - 1), i = Math.min(Math.floor(t), ramp.length - 2), f = t - i;
    return ramp[i].map((a, c) => Math.round(a + f * (ramp[i + 1][c] - a)));
  };
  const heatmap = Array.from({ length: 256 }, (_, v) => heat(v));
  function paint(canvas, source, index, coloured = false) {
    const context = canvas.getContext("2d"), image = context.createImageData(width, height), plane = width * height;
    for (let p = 0; p < plane; ++p) {
      let rgb;
      if (coloured) rgb = heatmap[source[index * plane + p]];
      else if (channels === 3) rgb = [0, 1, 2].map((c) => source[index * size + c * plane + p]);
      else { const v = source[index * size + p]; rgb = [v, v, v]; }
      image.data.set([...rgb, 255], 4 * p);
    }
    context.putImageData(image, 0, 0);
  }
  function picture(source, index, label, coloured = false) {
    const canvas = el("canvas", { width, height, class: "pixels", role: "img", "aria-label": label });
    paint(canvas, source, index, coloured);
    return canvas;
  }

  // --- what can be sorted by -------------------------------------------------------------------------------------
  const measures = data.measures;  // name -> {label, doc, higher, kind: "metric" | "trust"}
  const methods = data.methods;    // [{name, doc}]
  const state = { split: data.splits[0].name, sort: "item", descending: true, label: "", best: 100, shown: new Set(methods.map((m) => m.name)) };
  const of = (method, split = state.split) => data.reconstructions.find((r) => r.method === method && r.split === split);
  const value = (item, method, measure) => {
    const r = of(method);
    const k = r && r.at.get(item);
    const list = r && r.values[measure];
    return list && k !== undefined && list[k] !== null ? list[k] : NaN;
  };
  const shownMeasure = () => (state.sort === "item" ? data.headline : state.sort.slice(state.sort.indexOf("/") + 1));

  const splitSelect = el("select", { id: "split", onchange: (e) => { state.split = e.target.value; draw(); } },
    ...data.splits.map((s) => el("option", { value: s.name, text: `${s.name} (${s.items.length})` })));
  const sortSelect = el("select", { id: "sort", onchange: (e) => { state.sort = e.target.value; draw(); } },
    el("option", { value: "item", text: "order of the recording" }));
  for (const m of methods) {
    const group = el("optgroup", { label: m.name });
    const names = new Set(data.reconstructions.filter((r) => r.method === m.name).flatMap((r) => Object.keys(r.values)));
    for (const name of Object.keys(measures)) if (names.has(name)) group.append(el("option", { value: `${m.name}/${name}`, text: measures[name].label }));
    if (group.children.length) sortSelect.append(group);
  }
  const direction = el("button", { type: "button", id: "direction", onclick: () => { state.descending = !state.descending; draw(); } });
  const labels = [...new Set(data.items.map((i) => i.label).filter((l) => l))].sort();
  const classSelect = el("select", { id: "class", onchange: (e) => { state.label = e.target.value; draw(); } },
    el("option", { value: "", text: "all" }), ...labels.map((l) => el("option", { value: l, text: l })));
  const best = el("input", { type: "range", id: "best", min: 5, max: 100, step: 5, value: 100, oninput: (e) => { state.best = Number(e.target.value); draw(); } });
  const bestLabel = el("span", { text: "keep" });
  const toggles = el("div");
  for (const m of methods)
    toggles.append(el("button", { type: "button", "aria-pressed": "true", title: m.doc, text: m.name, onclick: (e) => {
      state.shown.has(m.name) ? state.shown.delete(m.name) : state.shown.add(m.name);
      e.target.setAttribute("aria-pressed", String(state.shown.has(m.name)));
      draw();
    } }));
  $("controls").append(
    el("label", {}, "Split", splitSelect), el("label", {}, "Sort by", sortSelect), el("label", {}, "Order", direction),
    ...(labels.length > 1 ? [el("label", {}, "Class", classSelect)] : []),
    el("label", {}, bestLabel, best), el("fieldset", {}, el("span", { text: "Methods" }), toggles));

  // --- the cards ----------------------------------------------------------------------------------------------------
  const cards = $("cards");
  let visible = [];
  function chosen() {
    const split = data.splits.find((s) => s.name === state.split);
    let items = split.items.filter((i) => !state.label || data.items[i].label === state.label);
    if (state.sort !== "item") {
      const [method, measure] = [state.sort.slice(0, state.sort.indexOf("/")), shownMeasure()];
      const higher = measures[measure].higher, better = (a, b) => (higher ? b - a : a - b);
      const scored = items.map((i) => [i, value(i, method, measure)]).sort((a, b) => Number.isNaN(a[1]) - Number.isNaN(b[1]) || better(a[1], b[1]));
      items = scored.slice(0, Math.ceil((scored.length * state.best) / 100)).map((s) => s[0]);
    }
    return state.descending ? items : items.reverse();
  }
  function tile(item, method, { large = false } = {}) {
    const r = of(method.name), k = r && r.at.get(item);
    if (k === undefined) return null;
    const measure = shownMeasure(), v = value(item, method.name, measure);
    const canvas = picture(r.decoded, k, `${method.name}, ${data.items[item].name}`);
    const figure = el("figure", { class: "tile", "data-method": method.name }, canvas,
      el("figcaption", { title: method.doc }, el("span", { text: method.name }), el("span", { text: r.values[measure] ? short(v) : "" })));
    if (r.samples && !large) {
      // posterior samples one after the other while the pointer rests here
      let timer = 0, s = 0;
      figure.title = `${r.draws} posterior samples: hold the pointer here`;
      figure.addEventListener("pointerenter", () => { timer = setInterval(() => paint(canvas, r.samples, k * r.draws + (s++ % r.draws)), 350); });
      figure.addEventListener("pointerleave", () => { clearInterval(timer); paint(canvas, r.decoded, k); });
    }
    return figure;
  }
  function draw() {
    const sorting = state.sort !== "item";
    direction.textContent = sorting ? (state.descending ? "best first" : "worst first") : state.descending ? "first to last" : "last to first";
    best.disabled = !sorting;
    bestLabel.textContent = sorting ? `Keep the best ${state.best} %` : "Keep all (sort by a score first)";
    const active = methods.filter((m) => state.shown.has(m.name) && of(m.name));
    cards.style.setProperty("--columns", active.length + 1);
    visible = chosen();
    const measure = shownMeasure();
    cards.replaceChildren(...visible.map((item) => {
      const about = data.items[item];
      const strip = el("div", { class: "strip-of" },
        el("figure", { class: "tile true" }, picture(truth, item, `true, ${about.name}`), el("figcaption", {}, el("span", { text: "true" }))),
        ...active.map((m) => tile(item, m)));
      const values = active.map((m) => value(item, m.name, measure));
      const top = values.filter((v) => !Number.isNaN(v)).sort((a, b) => (measures[measure] && measures[measure].higher ? b - a : a - b))[0];
      if (active.length > 1) strip.querySelectorAll(".tile[data-method]").forEach((f, i) => f.classList.toggle("best", values[i] === top));
      return el("li", { class: "card", tabindex: 0, role: "button", "data-item": item, "aria-label": `${about.name}${about.label ? ", class " + about.label : ""}: open` },
        el("header", {}, el("b", { text: about.name }), about.label ? el("span", { class: "pill", text: about.label }) : null,
          el("span", { class: "value", text: measures[measure] ? measures[measure].label : "" })), strip);
    }));
    $("count").textContent = visible.length ? `${visible.length} of ${data.splits.find((s) => s.name === state.split).items.length} images` : "";
    $("none").hidden = visible.length > 0;
  }
  cards.addEventListener("click", (e) => { const card = e.target.closest(".card"); if (card) open(Number(card.dataset.item)); });

  // --- one image: every method, its spread and samples --------------------------------------------------------------
  const dialog = $("one");
  let current = -1;
  function open(item) {
    current = item;
    const about = data.items[item], at = visible.indexOf(item);
    const step = (by) => { const next = visible[at + by]; if (next !== undefined) open(next); };
    const body = el("div", { class: "one-body" });
    const first = el("figure", { class: "tile true" }, picture(truth, item, "true"), el("figcaption", {}, el("span", { text: "true" })));
    for (const m of methods) {
      const r = of(m.name), k = r && r.at.get(item);
      if (k === undefined) continue;
      const row = el("div", { class: "big-row" }, tile(item, m, { large: true }));
      if (r.sd) {
        const spread = el("figure", { class: "tile" }, picture(r.sd, k, "spread", true), el("figcaption", {}, el("span", { text: "spread (sd)" })));
        const bar = el("div", { class: "ramp" });
        bar.style.background = `linear-gradient(90deg, ${ramp.map((c) => `rgb(${c})`).join()})`;
        spread.append(bar, el("div", { class: "ends" }, el("span", { text: "0" }), el("span", { text: short(r.sd_most, 2) })));
        row.append(spread);
      }
      const facts = el("dl", { class: "facts" });
      for (const name of Object.keys(measures))
        if (r.values[name]) facts.append(el("dt", { text: measures[name].label, title: measures[name].doc }), el("dd", { text: short(r.values[name][k]) }));
      const right = el("div", {}, el("h3", { text: m.name }), m.doc ? el("p", { class: "note", text: m.doc }) : null, row);
      if (r.samples) {
        const draws = el("div", { class: "samples" });
        for (let s = 0; s < r.draws; ++s) draws.append(picture(r.samples, k * r.draws + s, `sample ${s + 1}`));
        right.append(el("p", { class: "note", text: `${r.draws} samples of the posterior` }), draws);
      }
      right.append(facts);
      body.append(el("div", { class: "pair" }, body.children.length ? el("span") : first, right));
    }
    dialog.replaceChildren(
      el("div", { class: "one-head" }, el("h2", { text: about.name + (about.label ? ` · ${about.label}` : "") }),
        el("button", { type: "button", "aria-label": "previous image", disabled: at <= 0, text: "←", onclick: () => step(-1) }),
        el("button", { type: "button", "aria-label": "next image", disabled: at < 0 || at + 1 >= visible.length, text: "→", onclick: () => step(1) }),
        el("button", { type: "button", "aria-label": "close", text: "Close", onclick: () => dialog.close() })), body);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { const card = cards.querySelector(`[data-item="${current}"]`); if (card) card.focus(); });

  // --- keyboard ---------------------------------------------------------------------------------------------------------
  const perRow = () => {
    const all = [...cards.children];
    return Math.max(1, all.findIndex((c) => c.offsetTop !== all[0].offsetTop) === -1 ? all.length : all.findIndex((c) => c.offsetTop !== all[0].offsetTop));
  };
  document.addEventListener("keydown", (e) => {
    if (e.altKey || e.ctrlKey || e.metaKey || /^(SELECT|INPUT|TEXTAREA)$/.test(e.target.tagName)) return;
    if (dialog.open) {
      const at = visible.indexOf(current), by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
      if (by && visible[at + by] !== undefined) { e.preventDefault(); open(visible[at + by]); }
      return;
    }
    const focused = document.activeElement.closest && document.activeElement.closest(".card");
    if (focused && (e.key === "Enter" || e.key === " ")) { e.preventDefault(); open(Number(focused.dataset.item)); return; }
    const all = [...cards.children];
    if (!all.length) return;
    if (e.key === "g") { e.preventDefault(); all[0].focus(); return; }
    if (e.key === "s") { e.preventDefault(); sortSelect.focus(); return; }
    if (!focused) return;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow(), ArrowUp: -perRow(), Home: -all.length, End: all.length }[e.key];
    if (!by) return;
    e.preventDefault();
    all[Math.min(Math.max(all.indexOf(focused) + by, 0), all.length - 1)].focus();
  });

  // --- does the spread tell the error? ------------------------------------------------------------------------------------
  const plots = [];
  function drawTrust() {
    for (const p of plots.splice(0)) p.destroy();
    const host = $("trust-plots");
    if (!host) return;
    host.replaceChildren();
    const style = getComputedStyle(root), ink = style.getPropertyValue("--soft").trim(), line = style.getPropertyValue("--line").trim(), dot = style.getPropertyValue("--decoded").trim();
    for (const t of data.trust || []) {
      const figure = el("figure", {}, el("figcaption", { text: t.caption }));
      const holder = el("div", { class: "plot" });
      figure.prepend(holder);
      host.append(figure);
      const order = t.x.map((_, i) => i).sort((a, b) => t.x[a] - t.x[b]);
      const axis = (label) => ({ label, stroke: ink, grid: { stroke: line }, ticks: { stroke: line }, labelSize: 22, font: "11px system-ui", labelFont: "12px system-ui" });
      plots.push(new uPlot({
        width: holder.clientWidth || 400, height: 260, legend: { show: false }, cursor: { show: false },
        scales: { x: { time: false } }, axes: [axis(t.x_label), axis(t.y_label)],
        series: [{}, { paths: () => null, points: { show: true, size: 7, fill: dot, stroke: dot, width: 0 } }],
      }, [order.map((i) => t.x[i]), order.map((i) => t.y[i])], holder));
    }
  }

  // --- the voxels that carry the prediction ---------------------------------------------------------------------------------
  function brain() {
    const holder = $("brain");
    if (!holder || !data.brain) return;
    const canvas = el("canvas", { "aria-label": "Anatomy with the pattern of the voxels", tabindex: 0 });
    holder.append(canvas);
    if (!window.niivue || !document.createElement("canvas").getContext("webgl2")) {
      holder.replaceWith(el("p", { class: "note", text: "This browser has no WebGL 2, so the brain cannot be shown." }));
      return;
    }
    const viewer = new niivue.Niivue({ backColor: [0, 0, 0, 1], show3Dcrosshair: true, crosshairColor: [1, 1, 1, 0.6], isColorbar: true, loadingText: "" });
    const volume = (v, options) => niivue.NVImage.loadFromBase64({ base64: v.nifti, name: v.file, ...options });
    (async () => {
      await viewer.attachToCanvas(canvas);
      viewer.addVolume(await volume(data.brain.anatomy, { colormap: "gray", colorbarVisible: false }));
      const show = async (index) => {
        while (viewer.volumes.length > 1) viewer.removeVolume(viewer.volumes[1]);
        const o = data.brain.overlays[index];
        const below = o.signed === false ? {} : { colormapNegative: "winter", cal_minNeg: -o.most, cal_maxNeg: -o.least };
        const map = await volume(o, { colormap: "warm", opacity: 0.9, cal_min: o.least, cal_max: o.most, ...below });
        viewer.addVolume(map);
        const [, nx, ny] = map.hdr.dims;  // begin where most of it is
        let top = 0;
        map.img.forEach((v, i) => { if (v > map.img[top]) top = i; });
        viewer.scene.crosshairPos = viewer.vox2frac([top % nx, Math.floor(top / nx) % ny, Math.floor(top / nx / ny)], 1);
        viewer.drawScene();
        $("brain-doc").textContent = o.doc;
      };
      const select = $("brain-select");
      data.brain.overlays.forEach((o, i) => select.append(el("option", { value: i, text: o.name })));
      select.addEventListener("change", () => show(Number(select.value)));
      viewer.setSliceType(viewer.sliceTypeMultiplanar);
      await show(0);
      holder.dataset.ready = "yes";
    })().catch((e) => { holder.dataset.error = String(e); console.error(e); });
  }

  $("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; drawTrust(); });
  let resized = 0;
  addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(drawTrust, 150); });
  draw();
  drawTrust();
  brain();
})();
