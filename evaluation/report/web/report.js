"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let plots = [];
  let builders = [];

  // --- theme: the system's until the reader chooses; printing is always light ---
  let chosen = null;
  const setTheme = (name) => { root.dataset.theme = name; draw(); };
  const wanted = () => chosen || (dark.matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => {
    chosen = wanted() === "dark" ? "light" : "dark";
    setTheme(chosen);
  });
  dark.addEventListener("change", () => setTheme(wanted()));
  addEventListener("beforeprint", () => {
    for (const d of document.querySelectorAll("details")) d.open = true;
    setTheme("light");
  });
  addEventListener("afterprint", () => setTheme(wanted()));

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const alpha = (colour, a) => colour + Math.round(a * 255).toString(16).padStart(2, "0");
  const make = (tag, parent, cls) => {
    const e = document.createElement(tag);
    if (cls) e.className = cls;
    parent.append(e);
    return e;
  };
  const show = (v) => v == null ? "–" : String(Number(v.toPrecision(4))).replace("-", "\u2212");
  const label = (name, unit) => unit && unit !== "1" ? `${name} [${unit}]` : name;

  const axis = (text, size) => ({
    label: text, labelSize: 22, size, stroke: css("--soft"), font: "12px " + css("--sans"), labelFont: "12px " + css("--sans"),
    grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1, size: 4 },
    values: (u, ticks) => ticks.map((t) => t == null ? "" : String(Number(t.toPrecision(6))).replace("-", "\u2212")),
  });
  const add = (holder, options, series, height) => {
    const width = () => Math.max(240, holder.clientWidth);
    const u = new uPlot({ ...options, width: width(), height }, series, holder);
    plots.push({ u, holder, height, width });
    return u;
  };
  const figure = (parent, caption, description) => {
    const f = make("figure", parent);
    const holder = make("div", f, "plot");
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", description);
    make("figcaption", f).textContent = caption;
    return holder;
  };

  // --- one time plot: lines over a shared, zoomable x axis ---
  const timePlot = (holder, t, lines, o) => {
    const series = [{ label: o.xLabel, value: (u, v) => show(v) }];
    const bands = [];
    const values = [t.x];
    for (const l of lines) {
      if (l.band) {
        bands.push({ series: [values.length, values.length + 1], fill: alpha(l.stroke, 0.2) });
        for (const edge of [1, 0])
          series.push({ label: l.name + (edge ? " high" : " low"), stroke: alpha(l.stroke, 0.45), width: 0.6, points: { show: false }, value: (u, v) => show(v) });
        values.push(l.band[1], l.band[0]);
      } else {
        series.push({ label: l.name, stroke: l.stroke, width: l.width || 1.5, fill: l.fill, points: { show: false }, value: (u, v) => show(v) });
        values.push(l.values);
      }
    }
    return add(holder, {
      series, bands,
      scales: { x: { time: false }, ...(o.zero ? { y: { range: (u, low, high) => [0, high > 0 ? high * 1.05 : 1] } } : {}) },
      axes: [axis(o.xLabel, 32), axis(o.yLabel, 62)],
      cursor: { sync: { key: o.sync, setSeries: false }, drag: { x: true, y: false } },
      legend: { live: true },
      hooks: { setScale: [(u, key) => { if (key === "x" && o.onZoom) o.onZoom(u); }] },
    }, values, o.height);
  };

  // --- a path in the plane: not sorted by x, so drawn by a path function of its own ---
  const planePlot = (holder, paths, xLabel, yLabel) => {
    const line = (u, index) => {
      const [xs, ys] = u.data[index];
      const s = u.series[index];
      const c = u.ctx;
      c.save();
      c.beginPath();
      c.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
      c.clip();
      c.strokeStyle = s.stroke(u, index);
      c.fillStyle = c.strokeStyle;
      c.lineWidth = 2 * devicePixelRatio;
      c.lineJoin = "round";
      if (s.broken) c.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      c.beginPath();
      let open = false, last = -1, first = -1;
      for (let i = 0; i < xs.length; ++i) {
        if (xs[i] == null || ys[i] == null) { open = false; continue; }
        const x = u.valToPos(xs[i], "x", true), y = u.valToPos(ys[i], "y", true);
        open ? c.lineTo(x, y) : c.moveTo(x, y);
        open = true;
        last = i;
        if (first < 0) first = i;
      }
      c.stroke();
      c.setLineDash([]);
      for (const [i, r] of [[first, 3.5], [last, 6]]) {
        if (i < 0) continue;
        c.beginPath();
        c.arc(u.valToPos(xs[i], "x", true), u.valToPos(ys[i], "y", true), r * devicePixelRatio, 0, 7);
        c.fill();
      }
      c.restore();
      return null;
    };
    const all = (k) => paths.flatMap((p) => p.data[k]).filter((v) => v != null);
    const span = (v) => v.length ? [Math.min(...v), Math.max(...v)] : [0, 1];
    const [x0, x1] = span(all(0)), [y0, y1] = span(all(1));
    // one unit is as long in x as in y
    const height = Math.min(460, Math.max(300, holder.clientWidth * 0.8));
    const w = Math.max(holder.clientWidth - 100, 100), h = height - 110;
    const scale = Math.max((x1 - x0) / w, (y1 - y0) / h, 1e-12) * 1.1;
    const range = (a, b, size) => [(a + b - scale * size) / 2, (a + b + scale * size) / 2];
    return add(holder, {
      mode: 2,
      series: [null, ...paths.map((p) => ({ label: p.name, stroke: p.stroke, broken: p.broken, facets: [{ scale: "x", auto: true }, { scale: "y", auto: true }], paths: line, value: () => "" }))],
      scales: { x: { time: false, range: () => range(x0, x1, w) }, y: { range: () => range(y0, y1, h) } },
      axes: [axis(xLabel, 32), axis(yLabel, 62)],
      cursor: { show: false }, legend: { live: false },
    }, [null, ...paths.map((p) => p.data)], height);
  };

  const trajectory = (t, index) => {
    const parent = document.getElementById("trajectory-" + index);
    const sync = "trajectory-" + index;
    const xLabel = t.x_label;
    const shown = [];
    let zooming = false;
    const onZoom = (from) => {  // every plot of the entry shows the same stretch of time
      if (zooming) return;
      zooming = true;
      const { min, max } = from.scales.x;
      for (const u of shown) if (u !== from && min != null && (u.scales.x.min !== min || u.scales.x.max !== max)) u.setScale("x", { min, max });
      zooming = false;
    };
    const tools = make("div", parent, "tools");
    const first = t.x[0], last = t.x[t.x.length - 1];
    // what the mouse does by dragging, a keyboard does here: middle and half width of the new stretch
    const button = (text, stretch) => {
      const b = make("button", tools);
      b.type = "button";
      b.textContent = text;
      b.addEventListener("click", () => {
        const { min, max } = shown[0].scales.x;
        const [middle, half] = stretch((min + max) / 2, (max - min) / 2);
        const wide = Math.min(half, (last - first) / 2), at = Math.min(Math.max(middle, first + wide), last - wide);
        shown[0].setScale("x", { min: at - wide, max: at + wide });
      });
    };
    button("Everything", () => [(first + last) / 2, (last - first) / 2]);
    button("Closer", (middle, half) => [middle, half / 3]);
    button("Earlier", (middle, half) => [middle - half, half]);
    button("Later", (middle, half) => [middle + half, half]);
    make("span", tools, "note").textContent = "Drag across a plot to zoom, double-click to zoom out.";
    for (const o of t.outputs) {
      const holder = figure(parent, o.low ? `${o.name}: true, decoded, and the 90 % band of the posterior` : `${o.name}: true and decoded`,
        `${o.name} over time, true and decoded`);
      const lines = [];
      if (o.low) lines.push({ name: "90 %", stroke: css("--decoded"), band: [o.low, o.high] });
      lines.push({ name: "true", values: o.true, stroke: css("--true"), width: 1.4 });
      lines.push({ name: "decoded", values: o.decoded, stroke: css("--decoded"), width: 1.8 });
      shown.push(timePlot(holder, t, lines, { xLabel, yLabel: label(o.name, t.unit), sync, height: 230, onZoom }));
    }
    const holder = figure(parent, `Error: length of true minus decoded, each frame, and its running mean over ${t.error_window} frames`, "Error over time");
    shown.push(timePlot(holder, t, [
      { name: "error", values: t.error, stroke: alpha(css("--error"), 0.45), width: 1 },
      { name: "running mean", values: t.error_mean, stroke: css("--error"), width: 2.2 },
    ], { xLabel, yLabel: label("error", t.unit), sync, height: 190, zero: true, onZoom }));

    if (t.path) path(t, index);
  };

  // --- true against decoded in the plane, for a window that can be moved ---
  const path = (t, index) => {
    const parent = document.getElementById("path-" + index);
    const tools = make("div", parent, "tools");
    const mode = make("button", tools);
    mode.type = "button";
    const slider = make("input", tools);
    slider.type = "range";
    slider.setAttribute("aria-label", "First frame of the window");
    const holder = figure(parent, "", "Path in the plane, true and decoded");
    const caption = holder.parentElement.querySelector("figcaption");
    let first = t.path.first;
    let summed = t.path.summed;
    const movable = !t.reduced;
    slider.hidden = !movable;
    slider.min = 0;
    slider.max = Math.max(0, t.x.length - t.path.frames);
    slider.value = first;
    let plot = null;
    const two = (key) => {
      const window = movable ? [0, 1].map((i) => t.outputs[i][key].slice(first, first + t.path.frames)) : t.path[key];
      if (!summed) return window;
      let x = 0, y = 0;
      const out = [[], []];
      for (let i = 0; i < window[0].length; ++i) {
        const a = window[0][i], b = window[1][i];
        const missing = a == null || b == null;
        if (!missing) { x += a * t.path.step; y += b * t.path.step; }
        out[0].push(missing ? null : x);
        out[1].push(missing ? null : y);
      }
      return out;
    };
    const update = () => {
      mode.textContent = "Summed over time";
      mode.setAttribute("aria-pressed", String(summed));
      if (plot) { plots = plots.filter((p) => p.u !== plot); plot.destroy(); }
      const names = t.outputs.slice(0, 2).map((o) => label(summed ? "sum of " + o.name : o.name, summed ? (t.path.step_unit && t.unit !== "1" ? t.unit + " " + t.path.step_unit : "") : t.unit));
      plot = planePlot(holder, [
        { name: "true", stroke: css("--true"), data: two("true"), broken: true },
        { name: "decoded", stroke: css("--decoded"), data: two("decoded") },
      ], names[0], names[1]);
      caption.textContent = `${t.path.frames} frames from ${t.x_label.replace(/ \[.*/, "")} ${show(movable ? t.x[first] : t.path.x)}${t.path.step_unit ? " " + t.path.step_unit : ""}; small dot: start, large dot: end` +
        (summed ? "; what was decoded is added up from the start of the window" : "");
    };
    mode.addEventListener("click", () => { summed = !summed; t.path.summed = summed; update(); });
    slider.addEventListener("input", () => { first = Number(slider.value); t.path.first = first; update(); });
    update();
  };

  const calibration = (c, index) => {
    const holder = figure(document.getElementById("calibration-" + index),
      "On the dashed line the posterior tells the truth; below it is too sure of itself. Bars: 95 % interval.",
      "Observed coverage against nominal coverage; the numbers are in the table beside");
    const levels = (c.levels || []).filter((l) => l.observed != null);
    const x = [0, ...levels.map((l) => l.nominal), 1];
    const observed = [null, ...levels.map((l) => l.observed), null];
    add(holder, {
      series: [{ label: "nominal", value: (u, v) => show(v) }, { label: "ideal", stroke: css("--soft"), dash: [5, 5], width: 1.2, points: { show: false }, value: (u, v) => show(v) },
        { label: "observed", stroke: css("--decoded"), width: 2, points: { show: true, size: 9, fill: css("--decoded") }, value: (u, v) => show(v) }],
      scales: { x: { time: false, range: () => [0, 1] }, y: { range: () => [0, 1] } },
      axes: [axis("nominal coverage", 32), axis("observed coverage", 62)],
      cursor: { drag: { x: false, y: false } },
      hooks: { draw: [(u) => {
        const k = u.ctx;
        k.save();
        k.strokeStyle = css("--decoded");
        k.lineWidth = 1.5 * devicePixelRatio;
        for (const l of levels) {
          if (l.low == null) continue;
          const at = u.valToPos(l.nominal, "x", true), half = 4 * devicePixelRatio;
          const low = u.valToPos(l.low, "y", true), high = u.valToPos(l.high, "y", true);
          k.beginPath();
          k.moveTo(at, low); k.lineTo(at, high);
          k.moveTo(at - half, low); k.lineTo(at + half, low);
          k.moveTo(at - half, high); k.lineTo(at + half, high);
          k.stroke();
        }
        k.restore();
      }] },
    }, [x, x, observed], 340);
  };

  const losses = (l, index) => {
    const colours = ["--decoded", "--accent", "--error", "--good", "--true"];
    const holder = figure(document.getElementById("loss-" + index), l.name, "Loss over " + (l.x_label || "steps"));
    timePlot(holder, { x: l.x }, l.series.map((s, i) => ({ name: s.name, values: s.values, stroke: css(colours[i % colours.length]), width: 2 })),
      { xLabel: l.x_label || "step", yLabel: "loss", sync: "loss-" + index, height: 260 });
  };

  // --- rows of images under each other: one canvas a strip, as many strips as the width asks for ---
  const images = (m, index) => {
    const parent = document.getElementById("images-" + index);
    parent.replaceChildren();
    const [height, width] = m.shape, plane = height * width, size = plane * m.channels;
    const rows = m.rows.map((r) => Uint8Array.from(atob(r.pixels), (c) => c.charCodeAt(0)));
    const scale = Math.max(1, Math.round(48 / width)), gap = 3;
    const strip = Math.max(1, Math.floor((parent.clientWidth + gap) / (width * scale + gap)));
    for (let first = 0; first < m.count; first += strip) {
      const n = Math.min(strip, m.count - first);
      const canvas = make("canvas", parent);
      canvas.width = n * (width * scale + gap) - gap;
      canvas.height = rows.length * (height * scale + 1) - 1;
      const context = canvas.getContext("2d");
      for (let k = 0; k < n; ++k)
        rows.forEach((pixels, r) => {
          const picture = context.createImageData(width * scale, height * scale);
          for (let y = 0; y < height * scale; ++y)
            for (let x = 0; x < width * scale; ++x) {
              const from = (first + k) * size + Math.floor(y / scale) * width + Math.floor(x / scale);
              const to = 4 * (y * width * scale + x);
              for (let c = 0; c < 3; ++c) picture.data[to + c] = pixels[from + (m.channels === 3 ? c * plane : 0)];
              picture.data[to + 3] = 255;
            }
          context.putImageData(picture, k * (width * scale + gap), r * (height * scale + 1));
        });
    }
  };

  // --- one dot an item, and doubt against error in ten parts ---
  const scatter = (holder, xs, ys, xLabel, yLabel, lines) => {
    const order = xs.map((x, i) => i).filter((i) => xs[i] != null && ys[i] != null).sort((a, b) => xs[a] - xs[b]);
    const most = Math.max(...order.map((i) => xs[i]), ...order.map((i) => ys[i]), 1e-12) * 1.05;
    const dots = { label: yLabel, stroke: css("--decoded"), width: 2, points: { show: true, size: lines ? 8 : 6, fill: css("--decoded") }, value: (u, v) => show(v) };
    if (!lines) dots.paths = () => null;
    add(holder, {
      series: [{ label: xLabel, value: (u, v) => show(v) }, { label: "spread = error", stroke: css("--soft"), dash: [5, 5], width: 1.2, points: { show: false }, value: (u, v) => show(v) }, dots],
      scales: { x: { time: false, range: () => [0, most] }, y: { range: () => [0, most] } },
      axes: [axis(xLabel, 32), axis(yLabel, 62)],
      cursor: { drag: { x: false, y: false } },
    }, [order.map((i) => xs[i]), order.map((i) => xs[i]), order.map((i) => ys[i])], 320);
  };
  const trust = (t, index) => {
    const parent = document.getElementById("trust-" + index);
    scatter(figure(parent, "One dot an item: its error against its spread. On the dashed line they are equal.", "Error of each item against its spread"),
      t.spread, t.error, "spread", "error");
    if (t.reliability && t.reliability.sd.length)
      scatter(figure(parent, "All values by rising spread, in ten equal parts: error against spread.", "Error against spread in ten parts"),
        t.reliability.sd, t.reliability.rmse, "spread", "error", true);
  };

  data.images.forEach((m, i) => builders.push(() => images(m, i)));
  data.trust.forEach((t, i) => builders.push(() => trust(t, i)));
  data.trajectories.forEach((t, i) => builders.push(() => trajectory(t, i)));
  data.calibration.forEach((c, i) => { if ((c.levels || []).length) builders.push(() => calibration(c, i)); });
  data.losses.forEach((l, i) => builders.push(() => losses(l, i)));

  function draw() {
    for (const p of plots) p.u.destroy();
    plots = [];
    for (const e of document.querySelectorAll(".plots")) e.replaceChildren();
    for (const b of builders) b();
  }
  let timer = 0;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      for (const p of plots) p.u.setSize({ width: p.width(), height: p.height });
      data.images.forEach(images);
    }, 120);
  });
  setTheme(wanted());
})();
