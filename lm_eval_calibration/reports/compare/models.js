// Tables of models that are sorted by their heads and searched; a point of the picture leads to its row.
const tables = [...document.querySelectorAll("table.models")];
for (const table of tables) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
      const keyed = [...body.rows].map(row => {
        const cell = row.cells[column], value = cell.dataset.value;
        return { row, key: value === undefined ? cell.textContent : value === "" ? null : Number(value) };
      });
      keyed.sort((a, b) => a.key === null ? 1 : b.key === null ? -1 :
        down * (typeof a.key === "string" ? a.key.localeCompare(b.key, undefined, { numeric: true }) : a.key - b.key));
      body.append(...keyed.map(one => one.row));
    });
  });
}
const find = document.getElementById("find");
if (find) {
  find.parentElement.hidden = false;
  const show = () => {
    const words = find.value.trim().toLowerCase().split(/\s+/);
    const fits = name => words.every(word => name.toLowerCase().includes(word));
    for (const table of tables) for (const row of table.tBodies[0].rows) row.hidden = !fits(row.cells[0].textContent);
    for (const point of document.querySelectorAll("g[data-model]")) point.classList.toggle("dim", !fits(point.dataset.model));
    const rows = [...tables[0].tBodies[0].rows];
    document.getElementById("found").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} models`;
  };
  find.addEventListener("input", show);
  show();
  for (const point of document.querySelectorAll("g[data-model]"))
    point.addEventListener("click", () => { find.value = point.dataset.model; show(); find.scrollIntoView(); });
}
document.documentElement.dataset.explorer = "ready";
