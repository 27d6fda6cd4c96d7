// Where the widgets' page manager finds its icon fonts: beside itself.
window.require = { paths: { "@jupyter-widgets/html-manager/dist": "_static/offline" } };
