const LETTERS = "ABCDEFGHIJ";

/** An order of `count` things that looks random and is the same for the same `seed`. */
function shuffled(count, seed) {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function render({ model, el }) {
  const body = frame(model, el);
  const [scales, methods, guess, psnr, residual, count] =
    ["scales", "methods", "guess", "psnr", "residual", "count"].map((name) => model.get(name));
  const sheet = sheetOf(model);
  const TRUTH = methods.length; // after the methods; −1 is the small picture
  const start = Math.floor(Math.random() * 1e6); // another order at each visit
  const picks = new Map(); // question → what was picked
  const at = () => [clamp(model.get("scale"), 0, scales.length - 1), clamp(model.get("face"), 0, count - 1)];
  const tile = (s, n, m) => {
    if (m === TRUTH) return scales.length * (methods.length + 1) * count + n;
    return (s * (methods.length + 1) + m + 1) * count + n;
  };
  const named = (m) => (m === TRUTH ? "truth" : m < 0 ? "given" : methods[m]);
  const numbers = (s, n, m) =>
    m < 0 || m === TRUTH ? [] : [`${psnr[s][m][n].toFixed(1)} dB`, `residual ${residual[s][m][n].toFixed(1)}`];

  const modes = choices([["compare"], ["guess the truth"]], (i) => set(model, { mode: ["look", "guess"][i] }));
  modes.node.prepend(html("legend", {}, "What to do"));
  const scaling = choices(scales.map((s) => [`${s}×`]), (i) => set(model, { scale: i }));
  scaling.node.prepend(html("legend", {}, "Scale"));
  const thumbs = Array.from({ length: count }, (_, n) => {
    const radio = html("input", { type: "radio", name: `${modes.radios[0].name}-face`, "aria-label": `Face ${n + 1}` });
    radio.addEventListener("change", () => set(model, { face: n }));
    const canvas = sheet.canvas();
    return { radio, canvas, node: html("label", { class: "facesr-thumb" }, radio, canvas) };
  });
  const people = html("fieldset", { class: "facesr-people" }, html("legend", {}, "Face"), ...thumbs.map((t) => t.node));
  const gallery = html("div", { class: "facesr-gallery" });
  const next = html("button", { type: "button", class: "facesr-play" }, "Next face");
  next.addEventListener("click", () => {
    set(model, { face: (at()[1] + 1) % count });
    gallery.querySelector("button")?.focus();
  });
  const verdict = html("output", { class: "facesr-verdict", "aria-live": "polite" });
  body.append(html("div", { class: "facesr-bar" }, modes.node, scaling.node), people, gallery,
    html("div", { class: "facesr-controls" }, verdict, next));

  function card(s, n, m) {
    const canvas = sheet.canvas();
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", [named(m), ...numbers(s, n, m)].join(", "));
    sheet.draw(canvas, tile(s, n, m));
    const said = numbers(s, n, m).map((text) => html("span", {}, text));
    return html("div", { class: "facesr-card" }, canvas, html("b", {}, m < 0 ? `given: ${scales[s]}× smaller` : named(m)), ...said);
  }

  function question(s, n) {
    const candidates = [...guess, TRUTH];
    const order = shuffled(candidates.length, start + 97 * n + 7 * s).map((i) => candidates[i]);
    const picked = picks.get(`${s},${n}`);
    const cards = order.map((m, i) => {
      if (picked !== undefined) {
        const shown = card(s, n, m);
        shown.classList.toggle("facesr-true", m === TRUTH);
        shown.classList.toggle("facesr-picked", m === picked);
        shown.querySelector("b").prepend(`${LETTERS[i]}: `);
        return shown;
      }
      const canvas = sheet.canvas();
      sheet.draw(canvas, tile(s, n, m));
      const button = html("button", { type: "button", class: "facesr-card", "aria-label": `${LETTERS[i]} is the truth` },
        canvas, html("b", {}, LETTERS[i]));
      button.addEventListener("click", () => {
        picks.set(`${s},${n}`, m);
        const [right, asked] = model.get("score");
        set(model, { score: [right + (m === TRUTH), asked + 1] });
        show();
        next.focus();
      });
      return button;
    });
    const [right, asked] = model.get("score");
    const score = asked ? ` Found so far: ${right} of ${asked}.` : "";
    const letter = LETTERS[order.indexOf(TRUTH)];
    if (picked === undefined) verdict.textContent = `One of these is the face itself. Which?${score}`;
    else if (picked === TRUTH) verdict.textContent = `Right: ${letter} is the truth.${score}`;
    else verdict.textContent = `No, that was ${named(picked)}; ${letter} is the truth.${score}`;
    return [card(s, n, -1), ...cards];
  }

  const show = () => {
    const [s, n] = at();
    const guessing = model.get("mode") === "guess";
    modes.check(Number(guessing));
    scaling.check(s);
    thumbs.forEach(({ radio, canvas }, k) => {
      radio.checked = k === n;
      sheet.draw(canvas, tile(s, k, guessing ? -1 : TRUTH)); // the truth would tell
    });
    next.style.display = guessing ? "" : "none";
    if (guessing) {
      gallery.replaceChildren(...question(s, n));
    } else {
      gallery.replaceChildren(...[-1, ...methods.keys(), TRUTH].map((m) => card(s, n, m)));
      verdict.textContent = `Face ${n + 1} at ${scales[s]}×: ` +
        [...methods.keys()].map((m) => `${methods[m]} ${numbers(s, n, m)[0]}`).join(", ") + ".";
    }
  };
  sheet.loaded.then(show);
  return live(model, body, ["face", "scale", "mode"], show);
}

export default { render };
