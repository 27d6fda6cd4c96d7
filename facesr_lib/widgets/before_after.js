function layer(model, name, label) {
  const image = html("img", { alt: label, draggable: "false" });
  image.onload = () => {
    URL.revokeObjectURL(image.src);
    image.style.imageRendering = image.naturalWidth * 2 <= model.get("width") ? "pixelated" : "auto";
  };
  image.src = pictureUrl(model.get(name));
  return html("div", { class: `facesr-layer facesr-${name}` }, image, html("span", { class: "facesr-chip", "aria-hidden": "true" }, label));
}

/** A slider that enlarges the stage about the middle of what is seen of it. */
function zoomed(model, body, view, stage) {
  const range = { type: "range", min: "1", max: String(model.get("closest")), step: "0.25", "aria-label": "Zoom" };
  const slider = html("input", range);
  const reading = html("output", { class: "facesr-reading" });
  body.append(html("div", { class: "facesr-controls" }, html("span", {}, "Zoom"), slider, reading));
  view.setAttribute("tabindex", "0"); // arrow keys scroll
  view.setAttribute("role", "region");
  view.setAttribute("aria-label", "The pictures; the arrow keys scroll over them");
  const show = () => {
    const zoom = model.get("zoom");
    const [x, y] = [(view.scrollLeft + view.clientWidth / 2) / view.scrollWidth, (view.scrollTop + view.clientHeight / 2) / view.scrollHeight];
    stage.style.width = `${100 * zoom}%`;
    stage.classList.toggle("facesr-near", zoom > 1);
    view.scrollTo(x * view.scrollWidth - view.clientWidth / 2, y * view.scrollHeight - view.clientHeight / 2);
    slider.value = String(zoom);
    reading.textContent = `${zoom.toFixed(2)} ×`;
  };
  slider.addEventListener("input", () => set(model, { zoom: Number(slider.value) }));
  model.on("change:zoom", show);
  show();
  return () => model.off("change:zoom", show);
}

function render({ model, el }) {
  const body = frame(model, el);
  const [first, second] = model.get("labels");
  const [width, height] = model.get("size");
  const before = layer(model, "before", first);
  const after = layer(model, "after", second);
  const handle = html(
    "div",
    {
      class: "facesr-handle",
      role: "slider",
      tabindex: "0",
      "aria-label": `How much of “${first}” covers “${second}”`,
      "aria-orientation": "horizontal",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
    },
    svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: "M9 6l-6 6 6 6M15 6l6 6-6 6" })),
  );
  const divider = html("div", { class: "facesr-divider" }, handle);
  const stage = html("div", { class: "facesr-wipe" }, after, before, divider);
  const view = html("div", { class: "facesr-view" }, stage); // scrolls over what is enlarged
  body.style.width = `${model.get("width")}px`;
  view.style.aspectRatio = stage.style.aspectRatio = `${width} / ${height}`;
  body.append(view);

  const show = () => {
    const percent = 100 * model.get("position");
    before.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    after.style.clipPath = `inset(0 0 0 ${percent}%)`;
    divider.style.left = `${percent}%`;
    handle.setAttribute("aria-valuenow", String(Math.round(percent)));
    handle.setAttribute("aria-valuetext", `${Math.round(percent)} % ${first}`);
  };
  const move = (position) => set(model, { position: clamp(position, 0, 1) });

  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    move((event.clientX - box.left) / box.width);
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // no text selection
    stage.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) drag(event);
  });
  const steps = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1 };
  handle.addEventListener("keydown", (event) => {
    const ends = { Home: 0, End: 1 };
    if (event.key in steps) move(model.get("position") + steps[event.key]);
    else if (event.key in ends) move(ends[event.key]);
    else return;
    event.preventDefault(); // the page does not scroll
  });

  model.on("change:position", show);
  show();
  const forget = model.get("closest") > 1 ? zoomed(model, body, view, stage) : () => {};
  return () => {
    model.off("change:position", show);
    forget();
  };
}

export default { render };
