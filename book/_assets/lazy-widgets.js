// The widgets' machinery (700 KB) comes when the first figure that moves comes near the view, or before printing.
(() => {
  let begun = false;
  const load = (name, attributes = {}) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `_static/${name}`;
      for (const [key, value] of Object.entries(attributes)) script.setAttribute(key, value);
      script.onload = resolve;
      script.onerror = reject;
      document.head.append(script);
    });
  const begin = async () => {
    if (begun) return;
    begun = true;
    // Where the page manager finds its icon fonts (beside itself), and MathJax 2's queue, which it still calls.
    const offline = "_static/offline";
    window.require = {
      paths: { "@jupyter-widgets/html-manager": `${offline}/widgets`, "@jupyter-widgets/html-manager/dist": offline },
    };
    window.MathJax = window.MathJax || {};
    window.MathJax.Hub = window.MathJax.Hub || { Queue() {}, Config() {}, Configured() {} };
    await load("offline/require.js");
    await load("offline/embed-amd.js", {
      "data-jupyter-widgets-cdn": "_static/offline/npm/",
      "data-jupyter-widgets-cdn-only": "",
    });
  };
  const watcher = new IntersectionObserver(
    (seen) => {
      if (!seen.some((entry) => entry.isIntersecting)) return;
      watcher.disconnect();
      begin();
    },
    { rootMargin: "300px" },
  );
  for (const view of document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')) {
    watcher.observe(view.parentElement);
  }
  addEventListener("beforeprint", begin);
})();
