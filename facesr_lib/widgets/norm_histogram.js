const COARSENESS = [1, 2, 4, 8, 16];

function histogram(model, series) {
  const width = model.get("bin_width");
  const density = model.get("density");
  const [low, high] = model.get("band");
  return chart("facesr-norms", (room) => (room > 480 ? 0.42 : 0.7), (drawing, box) => {
    const [upper, group] = [model.get("upper"), model.get("coarseness")];
    const bars = series.map((one) => {
      if (!model.get("shown").includes(one.name)) return [];
      const heights = [];
      for (let i = 0; i < one.counts.length && i * width < upper - 1e-9; i += group) {
        const count = one.counts.slice(i, i + group).reduce((sum, c) => sum + c, 0);
        heights.push(count / (one.size * width * group));
      }
      return heights;
    });
    const top = 1.06 * Math.max(...density, ...bars.flat());
    const x = (v) => box.left + ((box.right - box.left) * Math.min(v, upper)) / upper;
    const y = (v) => box.bottom - ((box.bottom - box.top) * v) / top;
    const band = { x: x(low), width: Math.max(0, x(high) - x(low)), y: box.top, height: box.bottom - box.top };
    drawing.append(svg("rect", { class: "facesr-band", ...band }));
    drawing.append(axes(box, x, y, ticks(0, upper, 8), ticks(0, top, 4), "squared norm ‖v‖²", ""));
    const end = Math.min(density.length - 1, Math.floor(upper / width + 1e-9));
    const curve = line(density.slice(0, end + 1).map((p, i) => [x(i * width), y(p)]));
    drawing.append(svg("path", { class: "facesr-reference", d: curve }));
    bars.forEach((heights, i) => {
      if (!heights.length) return;
      const step = width * group;
      const corners = heights.flatMap((h, k) => [[x(k * step), y(h)], [x((k + 1) * step), y(h)]]);
      const outline = [[x(0), y(0)], ...corners, [x(heights.length * step), y(0)]];
      drawing.append(svg("g", { class: `facesr-run-${i}` },
        svg("path", { class: "facesr-area", d: line(outline) }), svg("path", { class: "facesr-line", d: line(outline) })));
    });
    return () => {};
  });
}

function render({ model, el }) {
  const body = frame(model, el);
  const series = model.get("series");
  const d = model.get("dof");
  const width = model.get("bin_width");
  const end = width * (model.get("density").length - 1);
  const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${String(Number((100 * share).toPrecision(3)))} %`);

  const drawn = histogram(model, series);
  const head = ["codes", "mean", "spread", "KS", "outside", "cut off"];
  const reference = [d, short(Math.sqrt(2 * d)), "0", "1 %", ""].map((v) => html("td", {}, String(v)));
  const curve = svg("svg", { class: "facesr-swatch", viewBox: "0 0 26 12", "aria-hidden": "true" },
    svg("path", { class: "facesr-reference", d: "M1 6H25" }));
  const rows = series.map((one, i) => {
    const box = html("input", { type: "checkbox" });
    box.addEventListener("change", () => {
      const shown = series.filter(({ name }) => (name === one.name ? box.checked : model.get("shown").includes(name)));
      set(model, { shown: shown.map(({ name }) => name) });
    });
    const beyond = html("td", {});
    const numbers = [short(one.mean), short(one.std), String(Number(one.ks.toPrecision(2))), percent(one.outside)];
    const node = html("tr", {}, html("th", { scope: "row" }, html("label", { class: `facesr-run-${i}` }, box, swatch(i), one.name)),
      ...numbers.map((text) => html("td", {}, text)), beyond);
    return { node, box, beyond };
  });
  const table = html("table", { class: "facesr-table" },
    html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
    html("tbody", {}, ...rows.map((row) => row.node),
      html("tr", {}, html("th", { scope: "row" }, html("span", {}, curve, "χ²")), ...reference)));

  const least = Math.min(end, Math.ceil((1.05 * model.get("band")[1]) / width) * width);
  const axisEnd = range("Axis ends at", least, end, width, (v) => short(v), (v) => set(model, { upper: v }));
  const bar = range("Width of a bar", 0, COARSENESS.length - 1, 1, (i) => short(width * COARSENESS[i]),
    (i) => set(model, { coarseness: COARSENESS[i] }));
  body.append(drawn.node, table,
    html("div", { class: "facesr-settings" }, axisEnd.node, bar.node));

  const show = () => {
    drawn.resize();
    axisEnd.show(model.get("upper"));
    bar.show(Math.max(0, COARSENESS.findLastIndex((c) => c <= model.get("coarseness"))));
    const bins = Math.round(model.get("upper") / width);
    rows.forEach(({ box, beyond }, i) => {
      const { name, size, counts } = series[i];
      box.checked = model.get("shown").includes(name);
      beyond.textContent = percent(1 - counts.slice(0, bins).reduce((sum, c) => sum + c, 0) / size);
    });
  };
  return live(model, body, ["shown", "upper", "coarseness"], show, show);
}

export default { render };
