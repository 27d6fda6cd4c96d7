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

/** The URL of a picture held in a trait; the caller revokes it. */
const pictureUrl = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
