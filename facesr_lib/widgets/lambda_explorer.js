function tradeOff(sweeps, labels, current) {
  const all = (name) => sweeps.flatMap((sweep) => sweep[name]);
  const label = (text, axis) => text + (axis.logarithmic ? " (log)" : "");
  const above = html("div", { class: "facesr-above" }, label(labels[1], scale(all("realism"), 0, 1, 5)));
  const drawn = chart("facesr-plane", () => 0.9, (drawing, box) => {
    const x = scale(all("fidelity"), box.left, box.right, 5);
    const y = scale(all("realism"), box.bottom, box.top, 5);
    drawing.append(axes(box, x.at, y.at, x.ticks, y.ticks, label(labels[0], x), ""));
    const groups = sweeps.map((sweep, i) => {
      const points = sweep.fidelity.map((f, k) => [x.at(f), y.at(sweep.realism[k])]);
      const dot = svg("circle", { class: "facesr-dot", r: 7 });
      const group = svg("g", { class: `facesr-run-${i}` }, svg("path", { class: "facesr-line", d: line(points) }),
        ...points.map(([cx, cy]) => svg("circle", { class: "facesr-point", cx: cx.toFixed(1), cy: cy.toFixed(1), r: 3.5 })),
        dot);
      drawing.append(group);
      return { group, dot, points };
    });
    return () => {
      const [i, k] = current();
      groups.forEach(({ group, dot, points }, j) => {
        group.classList.toggle("facesr-ahead", j !== i);
        dot.style.display = j === i ? "" : "none";
        if (j !== i) return;
        drawing.append(group); // on top of the others
        dot.setAttribute("cx", points[k][0].toFixed(1));
        dot.setAttribute("cy", points[k][1].toFixed(1));
      });
    };
  });
  drawn.node.prepend(above);
  return drawn;
}

function render({ model, el }) {
  const body = frame(model, el);
  const [sweeps, beside, labels, count] = ["sweeps", "beside", "axes", "count"].map((name) => model.get(name));
  const current = () => {
    const i = clamp(model.get("sweep"), 0, sweeps.length - 1);
    return [i, clamp(model.get("point"), 0, sweeps[i].values.length - 1)];
  };

  const drawn = tradeOff(sweeps, labels, current);
  const sheet = sheetOf(model);
  const row = (name) => {
    const canvases = Array.from({ length: count }, sheet.canvas);
    const label = html("div", { class: "facesr-name" }, name);
    const tiles = html("div", { class: "facesr-columns" }, ...canvases);
    tiles.style.setProperty("--facesr-faces", String(count));
    return { canvases, label, node: html("div", {}, label, tiles) };
  };
  const moving = row("");
  const still = beside.map(({ name, first }) => ({ first, ...row(name) }));
  const rows = html("div", { class: "facesr-rows" }, moving.node, ...still.map(({ node }) => node));

  const weights = choices(sweeps.map((sweep, i) => [swatch(i), sweep.name]), (i) => set(model, { sweep: i }));
  weights.node.setAttribute("aria-label", "Which weight is turned");
  const slider = html("input", { type: "range", min: 0, step: 1 });
  slider.addEventListener("input", () => set(model, { point: Number(slider.value) }));
  const reading = html("span", { class: "facesr-step", "aria-hidden": "true" });
  const values = html("div", { class: "facesr-values", "aria-hidden": "true" });
  body.append(html("div", { class: "facesr-pair" }, drawn.node, rows));
  if (sweeps.length > 1) body.append(weights.node);
  body.append(html("div", { class: "facesr-controls" }, slider, reading), values);

  const show = () => {
    const [i, k] = current();
    const sweep = sweeps[i];
    drawn.show();
    moving.canvases.forEach((canvas, n) => sheet.draw(canvas, sweep.first + k * count + n));
    for (const { canvases, first } of still) canvases.forEach((canvas, n) => sheet.draw(canvas, first + n));
    weights.check(i);
    const name = `${sweep.name} = ${short(sweep.values[k])}`;
    const numbers = [`${labels[0]}: ${short(sweep.fidelity[k])}`, `${labels[1]}: ${short(sweep.realism[k])}`];
    slider.max = String(sweep.values.length - 1);
    slider.value = String(k);
    slider.setAttribute("aria-label", `Value of ${sweep.name}`);
    slider.setAttribute("aria-valuetext", [name, ...numbers].join("; "));
    moving.label.textContent = reading.textContent = name;
    values.replaceChildren(...numbers.map((text) => html("span", {}, text)));
  };
  sheet.loaded.then(show);
  return live(model, body, ["sweep", "point"], show, () => {
    drawn.resize();
    show();
  });
}

export default { render };
