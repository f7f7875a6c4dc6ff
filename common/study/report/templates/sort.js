// A click on a column's head sorts the table by it, another turns the order round. Numbers by their first number.
(() => {
  const value = (row, index) => {
    const text = row.cells[index]?.textContent.trim() ?? "";
    const number = /^[×(]?\s*(−?-?[\d,.]+)(?:\s*×\s*10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?/.exec(text);
    if (!number) return text;
    const power = [...(number[2] ?? "")].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(digit)).map((n) => (n < 0 ? "-" : n));
    return Number(number[1].replace("−", "-").replaceAll(",", "")) * 10 ** Number(power.join("") || 0);
  };
  const sort = (head) => {
    const table = head.closest("table"), body = table.tBodies[0], index = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [value(row, index), row]);
    rows.sort(([a], [b]) => typeof a !== typeof b ? (typeof a === "number" ? -1 : 1) : sign * (a > b ? 1 : a < b ? -1 : 0));
    body.append(...rows.map(([, row]) => row));
  };
  for (const button of document.querySelectorAll("details table thead th")) {
    button.tabIndex = 0;
    button.title = "sort by this column";
    button.addEventListener("click", () => sort(button));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(button);
    });
  }
})();
