function render({ model, el }) {
  const body = frame(model, el);
  const [stages, told, psnr] = ["stages", "told", "psnr"].map((name) => model.get(name));
  const sheet = sheetOf(model);
  const at = ({ trait, says }) => clamp(model.get(trait), 0, says.length - 1);
  const current = () => stages.reduce((place, stage) => place * stage.says.length + at(stage), 0);

  const pair = ["the face", "its photograph"].map((name) => {
    const canvas = sheet.canvas();
    canvas.setAttribute("role", "img");
    canvas.style.imageRendering = "auto"; // these are no mosaics
    return { canvas, node: html("div", {}, canvas, html("div", { class: "facesr-name" }, name)) };
  });
  pair[0].canvas.setAttribute("aria-label", "the face");
  const row = html("div", { class: "facesr-columns" }, ...pair.map(({ node }) => node));
  row.style.setProperty("--facesr-faces", "2");

  const sliders = stages.map(({ trait, name, says }) => {
    const input = html("input", { type: "range", min: 0, max: says.length - 1, step: 1, "aria-label": name });
    input.addEventListener("input", () => {
      model.set(trait, Number(input.value));
      model.save_changes();
    });
    const reading = html("span", { class: "facesr-reading", "aria-hidden": "true" });
    return { input, reading, node: html("label", { class: "facesr-setting" }, name, input, reading) };
  });
  const settings = html("div", { class: "facesr-settings" }, ...sliders.map(({ node }) => node));
  const verdict = html("output", { class: "facesr-verdict", "aria-live": "polite" });
  body.append(row, settings, html("div", { class: "facesr-controls" }, verdict));

  const show = () => {
    const k = current();
    stages.forEach((stage, i) => {
      const { input, reading } = sliders[i];
      input.value = String(at(stage));
      reading.textContent = stage.says[at(stage)];
      input.setAttribute("aria-valuetext", reading.textContent);
    });
    sheet.draw(pair[0].canvas, 0);
    sheet.draw(pair[1].canvas, 1 + k);
    verdict.textContent = `${told[k]} ${psnr[k].toFixed(1)} dB from the face.`;
    pair[1].canvas.setAttribute("aria-label", `its photograph: ${told[k]}`);
  };
  const watcher = new ResizeObserver(() => (body.dataset.wide = String(body.clientWidth >= 520)));
  watcher.observe(body);
  for (const { trait } of stages) model.on(`change:${trait}`, show);
  show();
  sheet.loaded.then(show);
  return () => {
    watcher.disconnect();
    for (const { trait } of stages) model.off(`change:${trait}`, show);
  };
}

export default { render };
