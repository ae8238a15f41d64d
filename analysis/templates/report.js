"use strict";
const fit = () => document.querySelectorAll(".js-plotly-plot").forEach(plot => Plotly.Plots.resize(plot));
window.addEventListener("load", fit);  // a figure is drawn before its neighbour has a place
window.addEventListener("beforeprint", fit);
const trials = document.getElementById("trials");
if (trials) {
  const body = trials.tBodies[0], rows = [...body.rows];
  const key = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.key ?? cell.textContent;
    return text === "" ? null : isNaN(text) ? text : Number(text);
  };
  const order = (a, b) => (typeof a === "number" && typeof b === "number") ? a - b : String(a).localeCompare(String(b));
  trials.tHead.addEventListener("click", event => {
    const head = event.target.closest("th");
    if (!head) return;
    const up = head.getAttribute("aria-sort") !== "ascending", column = head.cellIndex;
    for (const other of trials.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows.sort((a, b) => {
      const x = key(a, column), y = key(b, column);
      if (x === null || y === null) return (x === null) - (y === null);
      return up ? order(x, y) : order(y, x);
    });
    body.append(...rows);
  });
  const shown = document.getElementById("shown");
  document.getElementById("filter").addEventListener("input", event => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const row of rows) {
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length} trials.`;
  });
}
