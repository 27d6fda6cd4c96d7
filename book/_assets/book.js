// A figure opens at its full size by click or Enter; Escape, Enter or a click closes it.
document.addEventListener("DOMContentLoaded", () => {
  const box = document.createElement("dialog");
  box.className = "full-size";
  box.setAttribute("aria-label", "Figure, full size");
  box.addEventListener("click", () => box.close());
  document.body.append(box);
  const open = (picture) => {
    const large = new Image();
    large.src = picture.src;
    large.alt = picture.alt;
    const close = document.createElement("button");
    close.textContent = "Close";
    box.replaceChildren(close, large);
    box.showModal(); // Escape closes, and the focus returns to the figure
  };
  for (const picture of document.querySelectorAll(".bd-article .cell_output img")) {
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
    picture.setAttribute("aria-haspopup", "dialog");
    picture.addEventListener("click", () => open(picture));
    picture.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      open(picture);
    });
  }
  for (const scroller of document.querySelectorAll(".bd-article .highlight pre")) {
    if (scroller.scrollWidth > scroller.clientWidth) scroller.tabIndex = 0; // the arrow keys then reach it
  }
});

addEventListener("load", () => {
  for (const button of document.querySelectorAll("button.copybtn")) button.setAttribute("aria-label", "Copy this cell");
  if (typeof Search === "undefined" || !Search.htmlToText) return; // only the search page has it
  const plain = Search.htmlToText;
  const formula = /<(span|div) class="math[^>]*>[\s\S]*?<\/\1>/g;
  Search.htmlToText = (page, anchor) => plain(page.replace(formula, "…"), anchor);
});
