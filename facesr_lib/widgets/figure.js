// What all figures share. Python puts this text before the figure's own module (figure.py, `script`).

const builder = (create) => (tag, attributes = {}, ...children) => {
  const node = create(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const html = builder((tag) => document.createElement(tag));
const svg = builder((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** The figure's frame; returns the element that holds the figure itself. */
function frame(model, el) {
  const body = html("div", { class: "facesr-body" });
  const figure = html("figure", { class: "facesr", "aria-label": model.get("alt") });
  figure.dataset.lmSuppressShortcuts = "true"; // JupyterLab then leaves the keys to us
  if (model.get("title")) figure.append(html("p", { class: "facesr-title" }, model.get("title")));
  figure.append(body);
  if (model.get("caption")) figure.append(html("figcaption", {}, model.get("caption")));
  // Older notebooks know no such attribute; their shortcuts listen further out.
  figure.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(figure);
  return body;
}

function set(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/** Calls `show` at each change of these traits, and `resize` at each change of width; returns what ends both. */
function live(model, body, traits, show, resize = () => {}) {
  const watcher = new ResizeObserver(() => {
    body.dataset.wide = String(body.clientWidth >= 520);
    resize();
  });
  watcher.observe(body);
  for (const trait of traits) model.on(`change:${trait}`, show);
  return () => {
    watcher.disconnect();
    for (const trait of traits) model.off(`change:${trait}`, show);
  };
}

/** A labelled slider; `read` names the value aloud and beside it. */
function range(label, min, max, step, read, input) {
  const slider = html("input", { type: "range", min, max, step, "aria-label": label });
  const reading = html("span", { class: "facesr-reading", "aria-hidden": "true" });
  slider.addEventListener("input", () => input(Number(slider.value)));
  return {
    node: html("label", { class: "facesr-setting" }, html("span", { "aria-hidden": "true" }, label), slider, reading),
    show(value) {
      slider.value = String(value);
      reading.textContent = read(value);
      slider.setAttribute("aria-valuetext", read(value));
    },
  };
}

/** Radio buttons in a row, each before its nodes: `choose(i)` when the reader picks one. */
function choices(names, choose) {
  const group = `facesr-${Math.random().toString(36).slice(2)}`; // radio buttons of one figure belong together
  const radios = names.map((_, i) => {
    const radio = html("input", { type: "radio", name: group });
    radio.addEventListener("change", () => choose(i));
    return radio;
  });
  const labels = names.map((nodes, i) => html("label", {}, radios[i], ...nodes));
  return {
    node: html("fieldset", { class: "facesr-choice" }, ...labels),
    radios,
    check: (i) => radios.forEach((radio, j) => (radio.checked = j === i)),
  };
}

/** The URL of a picture held in a trait; the caller revokes it. */
const pictureUrl = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
