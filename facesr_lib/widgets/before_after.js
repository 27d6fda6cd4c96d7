function layer(model, name, label) {
  const image = html("img", { alt: label, draggable: "false" });
  image.onload = () => {
    URL.revokeObjectURL(image.src);
    image.style.imageRendering = image.naturalWidth * 2 <= model.get("width") ? "pixelated" : "auto";
  };
  image.src = pictureUrl(model.get(name));
  return html("div", { class: `facesr-layer facesr-${name}` }, image, html("span", { class: "facesr-chip", "aria-hidden": "true" }, label));
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
  body.style.width = `${model.get("width")}px`;
  stage.style.aspectRatio = `${width} / ${height}`;
  body.append(stage);

  const show = () => {
    const percent = 100 * model.get("position");
    before.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    after.style.clipPath = `inset(0 0 0 ${percent}%)`;
    divider.style.left = `${percent}%`;
    handle.setAttribute("aria-valuenow", String(Math.round(percent)));
    handle.setAttribute("aria-valuetext", `${Math.round(percent)} % ${first}`);
  };
  const move = (position) => {
    model.set("position", clamp(position, 0, 1));
    model.save_changes();
  };

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
  return () => model.off("change:position", show);
}

export default { render };
