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

  const sliders = stages.map(({ trait, name, says }) =>
    range(name, 0, says.length - 1, 1, (i) => says[i], (i) => set(model, { [trait]: i })));
  const settings = html("div", { class: "facesr-settings" }, ...sliders.map(({ node }) => node));
  const verdict = html("output", { class: "facesr-verdict", "aria-live": "polite" });
  body.append(row, settings, html("div", { class: "facesr-controls" }, verdict));

  const show = () => {
    const k = current();
    sliders.forEach((slider, i) => slider.show(at(stages[i])));
    sheet.draw(pair[0].canvas, 0);
    sheet.draw(pair[1].canvas, 1 + k);
    verdict.textContent = `${told[k]} ${psnr[k].toFixed(1)} dB from the face.`;
    pair[1].canvas.setAttribute("aria-label", `its photograph: ${told[k]}`);
  };
  show();
  sheet.loaded.then(show);
  return live(model, body, stages.map(({ trait }) => trait), show);
}

export default { render };
