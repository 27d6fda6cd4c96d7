// What figures with charts and sheets of faces share; comes after figure.js (figure.py, `script`).

const MARGIN = { left: 44, right: 10, top: 8, bottom: 34 };

/** Up to about `count` round numbers in [low, high]. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

/** Powers of ten in [low, high]; where these are few, also twice and five times them. */
function logTicks(low, high) {
  const mantissas = high / low > 1e3 ? [1] : [1, 2, 5];
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
    found.push(...mantissas.map((m) => m * 10 ** e));
  }
  return found.filter((v) => v >= low && v <= high);
}

const short = (value) => {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return value.toExponential(0).replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
};

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

const swatch = (i) =>
  svg("svg", { class: `facesr-swatch facesr-run-${i}`, viewBox: "0 0 26 12", "aria-hidden": "true" },
    svg("path", { class: "facesr-line", d: "M1 6H25" }), svg("circle", { class: "facesr-dot", cx: 13, cy: 6, r: 4 }));

/** Axes with ticks around the plotting area [left, right] × [top, bottom]; x and y map values to pixels. */
function axes(box, x, y, xTicks, yTicks, xLabel, yLabel) {
  const group = svg("g", { class: "facesr-axes" });
  for (const v of yTicks) {
    group.append(svg("path", { d: `M${box.left} ${y(v)}H${box.right}` }),
      svg("text", { x: box.left - 6, y: y(v) + 4, "text-anchor": "end" }, short(v)));
  }
  for (const v of xTicks) {
    group.append(svg("path", { d: `M${x(v)} ${box.bottom}v4` }),
      svg("text", { x: x(v), y: box.bottom + 16, "text-anchor": "middle" }, short(v)));
  }
  group.append(svg("path", { class: "facesr-base", d: `M${box.left} ${box.bottom}H${box.right}` }));
  group.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 31, "text-anchor": "middle" }, xLabel));
  if (yLabel) {
    const middle = (box.top + box.bottom) / 2;
    const turned = { x: 11, y: middle, transform: `rotate(-90 11 ${middle})`, "text-anchor": "middle" };
    group.append(svg("text", turned, yLabel));
  }
  return group;
}

/** A drawing that is redone at each width; `draw(box)` fills it and returns `show(step)`. */
function chart(className, ratio, draw) {
  const drawing = svg("svg", { class: className, "aria-hidden": "true" });
  const node = html("div", { class: "facesr-chart" }, drawing);
  let show = () => {};
  return {
    node,
    show: (step) => show(step),
    resize() {
      const width = node.clientWidth;
      if (!width) return; // not on the page yet
      const height = Math.round(width * ratio(width));
      drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
      drawing.replaceChildren();
      const { left, right, top, bottom } = MARGIN;
      show = draw(drawing, { left, top, right: width - right, bottom: height - bottom });
    },
  };
}

/** A logarithmic scale where positive values span more than a factor of ten, a linear one elsewhere; with a margin. */
function scale(values, from, to, count) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const logarithmic = low > 0 && high / low > 10;
  const f = logarithmic ? Math.log : (v) => v;
  const pad = 0.06 * (f(high) - f(low)) || 1;
  const at = (v) => from + ((to - from) * (f(v) - f(low) + pad)) / (f(high) - f(low) + 2 * pad);
  return { at, logarithmic, ticks: logarithmic ? logTicks(low, high) : ticks(low, high, count) };
}

/** The sheet of faces: `draw(canvas, tile)` once `loaded`. */
function sheetOf(model) {
  const [size, columns] = [model.get("resolution"), model.get("columns")];
  const sheet = new Image();
  sheet.src = pictureUrl(model.get("sheet"));
  return {
    loaded: sheet.decode().then(() => URL.revokeObjectURL(sheet.src)),
    canvas: () => html("canvas", { width: size, height: size, class: "facesr-face" }),
    draw(canvas, tile) {
      if (!sheet.complete || !sheet.naturalWidth) return;
      const [left, top] = [(tile % columns) * size, Math.floor(tile / columns) * size];
      canvas.getContext("2d").drawImage(sheet, left, top, size, size, 0, 0, size, size);
    },
  };
}
