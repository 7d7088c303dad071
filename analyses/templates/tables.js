// Sorts, filters, leafs through and gives away the tables of a report. Text is only ever set as
// text, never parsed as HTML.
"use strict";
(function () {
  var DASH = "\u2013", MINUS = "\u2212";

  function number(v, digits) {
    if (v === null || !isFinite(v)) return DASH;
    var text = v.toFixed(digits);
    return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", MINUS);
  }
  function word(v) {
    if (v === null) return DASH;
    return typeof v === "number" ? String(Number(v.toPrecision(6))) : v;
  }
  var SHOWN = {
    text: function (d, v) { return word(v); },
    link: function (d, v) { return word(v); },
    number: function (d, v) { return number(v, d); },
    value: function (d, v) {
      var size = v ? Math.floor(Math.log10(Math.abs(v))) : 0;
      return number(v, Math.min(Math.max(3 - size, 0), 12));
    },
    percent: function (d, v) { return v === null ? DASH : (100 * v).toFixed(1) + " %"; },
    p: function (d, v) {
      if (v === null) return DASH;
      return v < 0.001 ? "< .001" : v.toFixed(3).replace(/^0/, "");
    },
    interval: function (d, v, low, high) {
      return number(v, d) + " [" + number(low, d) + ", " + number(high, d) + "]";
    },
    pair: function (d, a, b) { return word(a) + " + " + word(b); }
  };

  function cell(table, shown, row) {
    if (shown.said !== null) return table.data[shown.said][row];
    var values = shown.of.map(function (k) { return table.data[k][row]; });
    return SHOWN[shown.how].apply(null, [shown.digits].concat(values));
  }

  // What is missing goes last, whichever way the rest is sorted.
  function sorted(table, rows, shown, way) {
    var key = shown.said === null ? table.data[shown.of[0]] : table.data[shown.said];
    return rows.slice().sort(function (a, b) {
      var x = key[a], y = key[b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      var order = typeof x === "number" ? x - y
        : x.localeCompare(y, undefined, {numeric: true, sensitivity: "base"});
      return way * (order || 0) || a - b;
    });
  }

  // A spreadsheet must not take somebody's label for a formula.
  function quoted(value) {
    if (value === null) return "";
    if (typeof value === "number") {
      return value === Infinity ? "inf" : value === -Infinity ? "-inf" : String(value);
    }
    var text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }
  function csv(table, rows) {
    var lines = [table.names.map(quoted).join(",")];
    rows.forEach(function (row) {
      lines.push(table.names.map(function (_, k) { return quoted(table.data[k][row]); }).join(","));
    });
    return lines.join("\r\n") + "\r\n";
  }
  function give(name, text) {
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/csv;charset=utf-8"}));
    link.download = name;
    document.body.appendChild(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  }

  function start(box) {
    var table = JSON.parse(box.querySelector("script[type='application/json']").textContent);
    table.data.forEach(function (column) {
      column.forEach(function (v, k) {
        if (v === "inf" || v === "-inf") column[k] = v === "inf" ? Infinity : -Infinity;
      });
    });
    var all = table.data[0].map(function (_, k) { return k; });
    var state = {rows: all, sort: null, way: 1, page: 0, text: "", modality: "", only: false};
    var find = function (name) { return box.querySelector("[data-part='" + name + "']"); };
    var body = box.querySelector("tbody"), heads = box.querySelectorAll("thead th");

    function chosen() {
      var needle = state.text.toLowerCase();
      var kept = all.filter(function (row) {
        if (state.modality && table.data[table.modality][row] !== state.modality) return false;
        if (state.only) {
          var q = table.data[table.q][row];
          if (q === null || !(q < 0.05)) return false;
        }
        return !needle || table.shown.some(function (shown) {
          return cell(table, shown, row).toLowerCase().indexOf(needle) >= 0;
        });
      });
      return state.sort === null ? kept
        : sorted(table, kept, table.shown[state.sort], state.way);
    }
    function line(row) {
      var tr = document.createElement("tr");
      table.shown.forEach(function (shown, k) {
        var td = document.createElement(k ? "td" : "th");
        if (!k) td.scope = "row";
        td.className = heads[k].className;
        var text = cell(table, shown, row), to = shown.how === "link" && table.data[shown.of[1]][row];
        if (to && /^[A-Za-z0-9][\w.+=@-]*\.html$/.test(to)) {
          var a = document.createElement("a");
          a.href = to;
          a.textContent = text;
          td.appendChild(a);
        } else {
          td.textContent = text;
        }
        tr.appendChild(td);
      });
      return tr;
    }
    function draw(rows) {
      body.replaceChildren.apply(body, rows.map(line));
    }
    function show() {
      var n = state.rows.length, pages = Math.max(1, Math.ceil(n / table.page));
      state.page = Math.min(Math.max(0, state.page), pages - 1);
      var from = state.page * table.page, to = Math.min(n, from + table.page);
      draw(state.rows.slice(from, to));
      find("status").textContent = n ? "rows " + (from + 1) + " to " + to + " of " + n +
        (n < all.length ? " (" + all.length + " in all)" : "") : "no row of " + all.length;
      find("before").disabled = state.page === 0;
      find("after").disabled = state.page === pages - 1;
      find("leaf").hidden = pages === 1;
    }
    function again() {
      state.rows = chosen();
      state.page = 0;
      show();
    }
    heads.forEach(function (head, k) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () {
        state.way = state.sort === k ? -state.way : 1;
        state.sort = k;
        heads.forEach(function (other, j) {
          other.setAttribute("aria-sort", j !== k ? "none"
            : state.way > 0 ? "ascending" : "descending");
        });
        again();
      });
    });
    function on(part, event, act) {
      var element = find(part);
      if (element) element.addEventListener(event, function () { act(element); });
    }
    on("text", "input", function (e) { state.text = e.value.trim(); again(); });
    on("modality", "change", function (e) { state.modality = e.value; again(); });
    on("only", "change", function (e) { state.only = e.checked; again(); });
    on("before", "click", function () { state.page -= 1; show(); });
    on("after", "click", function () { state.page += 1; show(); });
    on("csv", "click", function () { give(box.dataset.file, csv(table, state.rows)); });
    find("tools").hidden = false;
    find("foot").hidden = false;
    show();
    // Paper cannot be turned to the next rows: the first ones, and whatever is significant.
    window.addEventListener("beforeprint", function () {
      var some = state.rows.filter(function (row, k) {
        return k < table.page || (table.q !== null && table.data[table.q][row] !== null &&
          table.data[table.q][row] < 0.05);
      }).slice(0, 300);
      draw(some);
      find("status").textContent = some.length + " of " + all.length + " rows";
    });
    window.addEventListener("afterprint", show);
  }
  document.querySelectorAll("[data-table]").forEach(start);

  document.querySelectorAll("[data-copy]").forEach(function (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      give(button.dataset.copy, document.getElementById(button.dataset.from).textContent);
    });
  });
})();
