function plane(runs, background, frameAt) {
  return chart("facesr-plane", () => 1, (drawing, box) => {
    const points = runs.flatMap((run) => run.path).concat(background);
    const [xs, ys] = [0, 1].map((i) => points.map((p) => p[i]));
    const middle = [xs, ys].map((v) => (Math.min(...v) + Math.max(...v)) / 2);
    // One scale for both axes: distances in the plane are distances between codes.
    const spread = 1.1 * Math.max(...[xs, ys].map((v) => Math.max(...v) - Math.min(...v)), 1e-6);
    const unit = Math.min(box.right - box.left, box.bottom - box.top) / spread;
    const x = (v) => (box.left + box.right) / 2 + (v - middle[0]) * unit;
    const y = (v) => (box.top + box.bottom) / 2 - (v - middle[1]) * unit;
    const half = [(box.right - box.left) / 2 / unit, (box.bottom - box.top) / 2 / unit];
    const range = (i) => ticks(middle[i] - half[i], middle[i] + half[i], 6);
    const at = ([a, b]) => [x(a), y(b)];

    drawing.append(axes(box, x, y, range(0), range(1), "principal direction 1", "principal direction 2"));
    drawing.append(svg("g", { class: "facesr-cloud" },
      ...background.map((p) => svg("circle", { cx: x(p[0]), cy: y(p[1]), r: 1.8 }))));
    const moving = runs.map((run, i) => {
      const trail = svg("path", { class: "facesr-line" });
      const dot = svg("circle", { class: "facesr-dot", r: 6.5 });
      const [startX, startY] = at(run.path[0]);
      drawing.append(svg("g", { class: `facesr-run-${i}` },
        svg("path", { class: "facesr-line facesr-ahead", d: line(run.path.map(at)) }), trail,
        svg("circle", { class: "facesr-start", cx: startX, cy: startY, r: 4.5 }), dot));
      return { trail, dot };
    });
    return (step) => runs.forEach((run, i) => {
      const k = frameAt(run, step);
      const [cx, cy] = at(run.path[k]);
      moving[i].trail.setAttribute("d", line(run.path.slice(0, k + 1).map(at)));
      moving[i].dot.setAttribute("cx", cx.toFixed(1));
      moving[i].dot.setAttribute("cy", cy.toFixed(1));
    });
  });
}

function lossPanel(runs, term, lastStep) {
  const values = runs.map((run) => run.losses.find(([name]) => name === term)?.[1]);
  const all = values.flatMap((v) => v ?? []);
  const readings = values.map((v, i) => v && html("span", {}, ...(runs.length > 1 ? [swatch(i)] : []), html("b", {})));
  const scaleName = scale(all, 0, 1, 5).logarithmic ? " (log)" : "";
  const head = html("div", { class: "facesr-head" }, html("span", {}, term + scaleName), ...readings.filter(Boolean));
  const drawn = chart("facesr-loss", (width) => (width > 480 ? 0.36 : 0.55), (drawing, box) => {
    const x = (s) => box.left + ((box.right - box.left) * s) / Math.max(lastStep, 1);
    const { at: y, ticks: yTicks } = scale(all, box.bottom, box.top, 5);
    drawing.append(axes(box, x, y, ticks(0, lastStep, 6), yTicks, "step", ""));
    const cursor = svg("path", { class: "facesr-cursor" });
    drawing.append(cursor);
    const dots = values.map((v, i) => {
      if (!v) return null;
      const dot = svg("circle", { class: "facesr-dot", r: 4.5 });
      drawing.append(svg("g", { class: `facesr-run-${i}` },
        svg("path", { class: "facesr-line", d: line(v.map((value, s) => [x(s), y(value)])) }), dot));
      return dot;
    });
    return (step) => {
      cursor.setAttribute("d", `M${x(step)} ${box.top}V${box.bottom}`);
      values.forEach((v, i) => {
        if (!v) return;
        const s = clamp(step, 0, v.length - 1);
        dots[i].setAttribute("cx", x(s).toFixed(1));
        dots[i].setAttribute("cy", y(v[s]).toFixed(1));
        readings[i].lastChild.textContent = short(v[s]);
      });
    };
  });
  drawn.node.prepend(head);
  return drawn;
}

function faces(model, runs, frameAt) {
  const sheet = sheetOf(model);
  const canvases = runs.map(sheet.canvas);
  const named = runs.map((run, i) =>
    html("div", {}, canvases[i], html("div", { class: "facesr-name" }, swatch(i), run.name)));
  const node = html("div", { class: "facesr-faces" }, ...named);
  node.dataset.many = String(runs.length > 1);
  return {
    node,
    loaded: sheet.loaded,
    show: (step) => runs.forEach((run, i) => sheet.draw(canvases[i], run.first + frameAt(run, step))),
  };
}

function render({ model, el }) {
  const body = frame(model, el);
  const runs = model.get("runs");
  const background = model.get("background");
  const stops = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
  const terms = [...new Set(runs.flatMap((run) => run.losses.map(([term]) => term)))];
  const lastLoss = runs.flatMap((run) => run.losses.map(([, values]) => values.length - 1));
  const lastStep = Math.max(stops[stops.length - 1], ...lastLoss);
  const before = (steps, step) => Math.max(0, steps.findLastIndex((s) => s <= step));
  const frameAt = (run, step) => before(run.steps, step);

  const slider = html("input", { type: "range", min: 0, max: stops.length - 1, "aria-label": "Step of the search" });
  const button = html("button", { type: "button", class: "facesr-play" });
  const reading = html("span", { class: "facesr-step", "aria-hidden": "true" });
  const map = plane(runs, background, frameAt);
  const pictures = faces(model, runs, frameAt);
  const panels = terms.map((term) => lossPanel(runs, term, lastStep));
  const key = html("div", { class: "facesr-key" }, html("span", { class: "facesr-ring" }), "start",
    ...(background.length ? [html("span", { class: "facesr-speck" }), "ordinary faces"] : []));
  map.node.append(key);
  const losses = html("div", { class: "facesr-losses" }, ...panels.map((panel) => panel.node));
  losses.style.setProperty("--facesr-panels", [1, 1, 2, 3, 2][panels.length] ?? 3);
  body.append(html("div", { class: "facesr-pair" }, map.node, pictures.node),
    html("div", { class: "facesr-controls" }, button, slider, reading), losses);

  const index = () => before(stops, model.get("step"));
  const show = () => {
    const step = stops[index()];
    for (const part of [map, pictures, ...panels]) part.show(step);
    slider.value = String(index());
    const values = runs.map((run) => {
      const losses = run.losses.map(([term, v]) => `${term} ${short(v[clamp(step, 0, v.length - 1)])}`);
      return `${run.name} ${losses.join(", ")}`;
    });
    slider.setAttribute("aria-valuetext", `step ${step} of ${lastStep}: ${values.join("; ")}`);
    reading.textContent = `step ${step} of ${lastStep}`;
  };
  const go = (i) => set(model, { step: stops[i] });

  let timer = 0;
  const play = (on) => {
    clearInterval(timer);
    const slow = matchMedia("(prefers-reduced-motion: reduce)").matches; // one still after another, no film
    if (on && index() === stops.length - 1) go(0);
    timer = on ? setInterval(() => (index() < stops.length - 1 ? go(index() + 1) : play(false)), slow ? 1500 : 200) : 0;
    const sign = svg("path", { d: on ? "M3 2h4v12H3zM9 2h4v12H9z" : "M4 2l10 6-10 6z" });
    button.replaceChildren(svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, sign), on ? "Pause" : "Play");
  };
  button.addEventListener("click", () => play(!timer));
  slider.addEventListener("input", () => {
    play(false);
    go(Number(slider.value));
  });

  pictures.loaded.then(show);
  play(false);
  const forget = live(model, body, ["step"], show, () => {
    for (const part of [map, ...panels]) part.resize();
    show();
  });
  return () => {
    play(false);
    forget();
  };
}

export default { render };
