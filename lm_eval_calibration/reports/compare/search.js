// Shows the rows whose model has every word of the search in its name, in all tables; the address keeps the search.
(() => {
  const input = document.getElementById("search");
  const rows = [...document.querySelectorAll("tbody tr")];
  const names = rows.map((row) => row.querySelector("th").textContent.toLowerCase());
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = new Set();
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => names[i].includes(word));
      if (!row.hidden) found.add(names[i]);
    });
    document.getElementById("found").textContent = `${found.size} runs`;
    history.replaceState(null, "", input.value ? `#search=${encodeURIComponent(input.value)}` : location.pathname);
  };
  input.value = decodeURIComponent((location.hash.match(/^#search=(.*)/) || ["", ""])[1]);
  input.addEventListener("input", show);
  if (input.value) show();
})();
