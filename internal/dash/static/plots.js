// Draws each element with data-plot by uPlot. The values also stand in the table below it, for those who run no scripts.
(() => {
  "use strict";
  let drawn = [];

  const color = (el, name) => {
    el.style.color = `var(${name})`; // resolves light-dark()
    const c = getComputedStyle(el).color;
    el.style.color = "";
    return c;
  };

  const draw = (el) => {
    if (el.firstChild) return;
    const data = JSON.parse(el.dataset.plot);
    const n = data.lines.length ? data.lines[0].v.length : 0;
    if (!n) return;
    const at = Array.from({ length: n }, (_, i) => data.from + i * data.step);
    const axis = { stroke: color(el, "--soft"), grid: { stroke: color(el, "--line"), width: 1 }, ticks: { stroke: color(el, "--line"), width: 1 } };
    const text = (ts, from, to) => new Date(ts * 1e3).toISOString().slice(from, to);
    const within = n * data.step <= 86400; // a day
    const times = (_, values) => values.map((ts) => (within ? text(ts, 11, 16) : text(ts, 5, 10)));
    const size = () => ({ width: el.clientWidth, height: 180 });
    const u = new uPlot({
      ...size(),
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"),
      legend: { live: true },
      scales: { y: { range: (_, low, high) => [0, Math.max(high, data.unit === "seconds" ? 0.001 : 1)] } },
      axes: [{ ...axis, values: times }, { ...axis, size: 56 }],
      series: [{ label: "UTC", value: (_, ts) => (ts == null ? "–" : text(ts, 0, 16).replace("T", " ")) }, ...data.lines.map((l, i) => ({
        label: l.name, stroke: color(el, `--plot${1 + (i % 6)}`), width: 2, dash: i < 6 ? undefined : [6, 4],
        value: (_, v) => (v == null ? "–" : `${+v.toPrecision(3)} ${data.unit}`),
      }))],
    }, [at, ...data.lines.map((l) => l.v)], el);
    const watch = new ResizeObserver(() => u.setSize(size()));
    watch.observe(el);
    drawn.push({ el, end: () => { watch.disconnect(); u.destroy(); } });
  };

  const all = () => {
    drawn = drawn.filter((d) => d.el.isConnected || d.end());
    document.querySelectorAll("[data-plot]").forEach(draw);
  };

  const again = () => {
    drawn.forEach((d) => { d.end(); d.el.replaceChildren(); });
    drawn = [];
    all();
  };

  document.addEventListener("DOMContentLoaded", all);
  document.addEventListener("htmx:after:swap", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
})();
