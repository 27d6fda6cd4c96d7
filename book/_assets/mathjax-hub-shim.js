// The widgets' page manager still calls MathJax 2's queue; MathJax 3 typesets on its own.
window.MathJax = window.MathJax || {};
window.MathJax.Hub = window.MathJax.Hub || { Queue() {}, Config() {}, Configured() {} };
