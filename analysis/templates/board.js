"use strict";
// The leaderboard: sorts, filters and shows all rows, a hundred at a time. Text goes in as text only.
(() => {
  const table = document.getElementById("trials");
  if (!table) return;
  const STEP = 100, data = JSON.parse(document.getElementById("board-data").textContent);
  const columns = new Map(data.columns.map(column => [column.name, column]));
  const settings = new Map(data.settings.map(setting => [setting.name, setting]));
  const total = data.notes.length, body = table.tBodies[0];
  const all = Array.from({length: total}, (_, row) => row);
  let order = all, limit = STEP, cached = null;

  const sign = value => (value >= 0 ? "+" : "") + value.toFixed(3);
  const forms = {
    whole: value => String(value), share: value => value.toFixed(3), text: value => value, signed: sign,
    seconds: value => value >= 100 ? value.toFixed(0) : value.toFixed(1),
  };
  const form = (column, value) => value === null ? "–" : forms[column.kind](value);
  const option = (setting, row) => setting.rows[row] < 0 ? "" : setting.options[setting.rows[row]];
  const isMain = (setting, row) => Array.isArray(setting.main) ? setting.main[setting.rows[row]] : setting.main;
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const cell = (column, row) => {
    const made = element("td", undefined, "c-" + column.name.replaceAll(" ", "-"));
    const value = column.values[row], text = form(column, value);
    made.append(column.name === "status" ? element("span", text, "pill " + value) : text);
    if (column.low && value !== null && column.low[row] !== null) {
      const show = column.kind === "signed" ? sign : forms.share;
      made.append(" ", element("span", `[${show(column.low[row])}, ${show(column.high[row])}]`, "ci"));
    }
    return made;
  };
  const fact = (name, value) => {
    const made = element("span", name + " ");
    made.append(element("b", value));
    return made;
  };
  const settingsOf = row => {
    const made = element("td", undefined, "settings"), box = element("div"), rest = element("details");
    rest.append(element("summary", "all"));
    for (const setting of settings.values()) {
      const value = option(setting, row);
      if (value) (isMain(setting, row) ? box : rest).append(fact(setting.name, value), " ");
    }
    if (rest.childElementCount > 1) box.append(rest);
    if (data.notes[row]) box.append(element("em", data.notes[row]));
    made.append(box);
    return made;
  };
  const line = row => {
    const made = element("tr");
    made.classList.toggle("best", row === data.best);
    made.classList.toggle("base", row === data.baseline);
    made.classList.toggle("unranked", columns.get("rank").values[row] === null);
    made.append(...data.columns.map(column => cell(column, row)), settingsOf(row));
    return made;
  };

  const shown = document.getElementById("shown"), more = document.getElementById("more");
  const show = () => {
    body.replaceChildren(...order.slice(0, limit).map(line));
    const found = order.length === total ? `${total} rows` : `${order.length} of ${total} rows`;
    shown.textContent = order.length > limit ? `${found}, the first ${limit} shown.` : `${found}.`;
    more.hidden = order.length <= limit;
  };

  const number = text => text === "" || isNaN(text) ? null : Number(text);
  const keyOf = name => {
    const setting = settings.get(name.replace(/^setting /, "")), column = columns.get(name);
    if (column) return row => column.values[row];
    return row => { const text = option(setting, row); return text === "" ? null : number(text) ?? text; };
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  let sorting = null;
  const arrange = () => {
    order = all.filter(matcher(document.getElementById("filter").value));
    if (sorting) {
      const key = keyOf(sorting.name);
      order.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return sorting.up ? compare(x, y) : compare(y, x);
      });
    }
    show();
  };

  // "convnext", "-failed", "score>0.5", "loss=focal": all of them have to hold
  const haystack = row => {
    cached ??= all.map(at => [
      ...data.columns.filter(column => column.kind === "text").map(column => column.values[at]),
      ...data.settings.map(setting => `${setting.name} ${option(setting, at)}`), data.notes[at],
    ].join(" ").toLowerCase());
    return cached[row];
  };
  const names = new Map([
    ...data.settings.map(setting => [setting.name.toLowerCase(), "setting " + setting.name]),
    ...data.columns.flatMap(column => [[column.name.toLowerCase(), column.name], [column.heading.toLowerCase(), column.name]]),
  ]);
  const rules = {
    "<": (x, y) => x < y, ">": (x, y) => x > y, "<=": (x, y) => x <= y, ">=": (x, y) => x >= y,
    "=": (x, y) => x === y,
  };
  const term = word => {
    const asked = word.match(/^([^<>=]+)(<=|>=|<|>|=)(.+)$/), name = asked && names.get(asked[1]);
    if (!name) return word.startsWith("-") && word.length > 1
      ? row => !haystack(row).includes(word.slice(1)) : row => haystack(row).includes(word);
    const key = keyOf(name), wanted = number(asked[3]) ?? asked[3];
    return row => {
      const value = key(row), known = typeof value === "string" ? value.toLowerCase() : value;
      return known !== null && typeof known === typeof wanted && rules[asked[2]](known, wanted);
    };
  };
  const matcher = text => {
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean).map(term);
    return row => terms.every(holds => holds(row));
  };

  const heads = [...table.tHead.rows[0].cells];
  const sort = (name, up, head) => {
    sorting = {name, up};
    for (const other of heads) other.removeAttribute("aria-sort");
    head?.setAttribute("aria-sort", up ? "ascending" : "descending");
    arrange();
  };
  table.tHead.addEventListener("click", event => {
    const head = event.target.closest("th"), column = head && data.columns[head.cellIndex];
    if (!column) return;
    const falls = ["share", "signed"].includes(column.kind), now = head.getAttribute("aria-sort");
    sort(column.name, now ? now !== "ascending" : !falls, head);
  });
  const by = document.getElementById("by");
  by.append(...[...settings.keys()].map(name => new Option(name, "setting " + name)));
  by.addEventListener("change", () => by.value
    ? sort(by.value, true) : (sorting = null, heads.forEach(head => head.removeAttribute("aria-sort")), arrange()));
  document.getElementById("filter").addEventListener("input", () => { limit = STEP; arrange(); });
  more.addEventListener("click", () => { limit += STEP; show(); });
  show();
})();
