"use strict";
const fit = () => document.querySelectorAll(".js-plotly-plot").forEach(plot => Plotly.Plots.resize(plot));
window.addEventListener("load", fit);  // a figure is drawn before its neighbour has a place
window.addEventListener("beforeprint", fit);
