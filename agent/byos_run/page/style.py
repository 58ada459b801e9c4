"""How the pages look and the little that they do: find in a table, sort it, read a chart under the pointer."""

from __future__ import annotations

STYLE = """
:root{--paper:#fcfcfb;--raised:#fff;--ink:#1c2127;--soft:#59636e;--line:#e2e4e7;--faint:#f1f2f4;
--fetch:#2f74c0;--solve:#1f8a70;--early:#e0a458;--publish:#c2700f;--other:#98a1ab;--good:#1d7a4f;--bad:#b9352f;--warn:#8a5a00;
--a:#2f74c0;--b:#c2700f;--c:#1f8a70;--d:#8557b0;--e:#b9352f;--f:#59636e}
@media (prefers-color-scheme:dark){:root{--paper:#131619;--raised:#1a1e22;--ink:#e4e7ea;--soft:#9aa4ae;--line:#2c3238;
--faint:#20252a;
--fetch:#6aa7e8;--solve:#4cb89b;--early:#8a6a3c;--publish:#e59a45;--other:#6b7681;--good:#58bd8b;--bad:#f07f78;--warn:#e0b155;
--a:#6aa7e8;--b:#e59a45;--c:#4cb89b;--d:#b893dd;--e:#f07f78;--f:#9aa4ae}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
"DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:36px 28px 64px}
.wide{max-width:1680px}
h1{font-size:28px;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:2px 0 6px;overflow-wrap:anywhere}
h2{font-size:17px;font-weight:620;margin:44px 0 14px;letter-spacing:-.005em}
h3{font-size:14px;font-weight:600;margin:0 0 8px}
p{margin:0 0 10px;max-width:78ch}
.brand,.soft,figcaption,dt,th,.axis,.note{color:var(--soft)}
.brand{font-size:13px;letter-spacing:.02em}
.note{font-size:13px}
code,.mono,pre,td.path{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.87em}
.place{overflow-wrap:anywhere}
.pill{display:inline-block;padding:2px 11px;border-radius:99px;border:1px solid currentColor;font-size:13px;font-weight:600;
margin:10px 0 4px}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));margin:26px 0 0;background:var(--raised);
border:1px solid var(--line);border-radius:10px;overflow:hidden}
.tiles>div{padding:13px 16px;box-shadow:0 0 0 1px var(--line);margin:0 1px 1px 0}
.tiles dt{font-size:12.5px}.tiles dd{margin:1px 0 0;font-size:20px;font-weight:600;white-space:nowrap;
letter-spacing:-.01em;
font-variant-numeric:tabular-nums}
.tiles dd+dd{white-space:normal;font-size:12.5px;font-weight:400;color:var(--soft);letter-spacing:0}
dl{margin:0}
.cause{border-left:3px solid var(--bad);padding:2px 0 2px 16px;margin:24px 0 0}
.cause b{overflow-wrap:anywhere}
.lanes{display:grid;grid-template-columns:max-content 1fr max-content;gap:7px 14px;align-items:center;font-size:13.5px}
.lanes svg{width:100%;height:18px;display:block;background:var(--faint);border-radius:3px}
.lanes .axis{grid-column:2}
.lanes .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.dense .lanes{gap:2px 14px;font-size:12px;line-height:1.35}.dense .lanes svg{height:10px}
.dense .box{max-height:560px;overflow-y:auto;padding-right:12px;border-block:1px solid var(--line)}
.dense .lanes .axis{position:sticky;bottom:0;background:var(--paper);padding:3px 0}
.dense .box:focus-visible{outline:2px solid var(--a)}
.axis{display:flex;justify-content:space-between;font-size:12px;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:30px 36px}
figure{margin:0;min-width:0}
.plot{display:grid;grid-template-columns:auto 1fr;gap:3px 9px}
.plot .y{display:flex;flex-direction:column;justify-content:space-between;text-align:right;margin:-8px 0}
.plot svg{width:100%;height:148px;display:block;overflow:visible}
.plot .x{grid-column:2}
.tall .plot svg{height:210px}
svg *{vector-effect:non-scaling-stroke}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.dot{fill:none;stroke-width:6.5;stroke-linecap:round;opacity:.72}
.at{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
.s0{stroke:var(--a)}.s1{stroke:var(--b)}.s2{stroke:var(--c)}.s3{stroke:var(--d)}.s4{stroke:var(--e)}.s5{stroke:var(--f)}
.key{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:12.5px;margin:7px 0 0;color:var(--soft)}
.key span{display:inline-flex;align-items:center;gap:6px;font-variant-numeric:tabular-nums}
.key svg{width:12px;height:12px;flex:none}
.key line{stroke-width:3;stroke-linecap:round}
.f-claim,.f-purge,.f-settle,.f-record,.f-other{fill:var(--other)}.f-fetch{fill:var(--fetch)}.f-solve{fill:var(--solve)}
.f-early{fill:var(--early)}.f-publish{fill:var(--publish)}
.g-good{fill:var(--good)}.g-bad{fill:var(--bad)}.g-warn{fill:var(--publish)}.g-running{fill:var(--fetch)}
.g-other{fill:var(--other)}.running{color:var(--fetch)}.other{color:var(--soft)}
.scroll{overflow-x:auto;max-height:620px;overflow-y:auto;border:1px solid var(--line);border-radius:10px;
background:var(--raised)}
.scroll:focus-visible{outline:2px solid var(--a);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 14px;border-bottom:1px solid var(--line);vertical-align:baseline}
tr:last-child td{border-bottom:0}
thead th{position:sticky;top:0;background:var(--raised);font-weight:500;white-space:nowrap;box-shadow:inset 0 -1px var(--line);
z-index:1}
th button{all:unset;cursor:pointer;color:inherit}th button:hover,th[aria-sort]{color:var(--ink)}
th button:focus-visible{outline:2px solid var(--a);outline-offset:3px;border-radius:2px}
th[aria-sort=ascending] button:after{content:" \\2191"}th[aria-sort=descending] button:after{content:" \\2193"}
td.n,th.n{text-align:right;white-space:nowrap}
td.path{overflow-wrap:anywhere;min-width:15em}
td.wrap{overflow-wrap:anywhere}td.k{white-space:nowrap}
tr[hidden]{display:none}
.find{display:flex;gap:14px;align-items:baseline;flex-wrap:wrap;margin:0 0 10px}
input[type=search]{font:inherit;font-size:14px;color:inherit;background:var(--raised);border:1px solid var(--line);
border-radius:8px;
padding:6px 12px;width:min(100%,340px)}
input[type=search]:focus-visible{outline:2px solid var(--a);outline-offset:1px}
pre{margin:0;padding:14px 16px;background:var(--faint);border-radius:10px;overflow:auto;max-height:440px;font-size:12.5px;
line-height:1.5;
white-space:pre-wrap;overflow-wrap:anywhere}
.squares{display:flex;flex-wrap:wrap;gap:3px;margin:0 0 12px;padding:0;list-style:none}
.squares a{display:block;line-height:0;border-radius:3px}
.squares a:focus-visible{outline:2px solid var(--ink)}
.squares svg{width:15px;height:15px}
.squares.big svg{width:26px;height:26px}
:target{background:var(--faint)}
.two{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,460px),1fr));gap:0 40px}
footer{margin-top:56px;padding-top:16px;border-top:1px solid var(--line);font-size:13px;color:var(--soft)}
@media (max-width:560px){main{padding:22px 15px 44px}h1{font-size:23px}.tiles{grid-template-columns:repeat(2,1fr)}
.lanes{gap:7px 9px;font-size:12.5px}
.axis.x span:nth-child(even):not(:last-child){display:none}
th,td{padding:6px 9px}.tiles dd{font-size:18px}.tiles>div{padding:11px 13px}}
@media print{:root{--paper:#fff;--raised:#fff;--ink:#000;--soft:#444;--line:#ccc;--faint:#f4f4f4;--fetch:#2f74c0;
--solve:#1f8a70;
--early:#e0a458;--publish:#c2700f;--other:#98a1ab;--good:#1d7a4f;--bad:#b9352f;--warn:#8a5a00}
body{font-size:11pt}main{max-width:none;padding:0}.find{display:none}.scroll,pre,.dense .box{max-height:none;overflow:visible}
h2{break-after:avoid}figure,.tiles,tr,.cause{break-inside:avoid}thead th{position:static}*{print-color-adjust:exact;
-webkit-print-color-adjust:exact}}
""".strip().replace("\n", "")

SCRIPT = """
"use strict";
for (const box of document.querySelectorAll("input[type=search]")) {
  const table = document.getElementById(box.dataset.finds), told = box.parentElement.querySelector("output");
  const rows = [...table.tBodies[0].rows], texts = rows.map(r => r.textContent.toLowerCase());
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let seen = 0;
    rows.forEach((row, i) => { row.hidden = !words.every(w => texts[i].includes(w)); seen += !row.hidden; });
    told.textContent = words.length ? seen.toLocaleString("en") + " of " + rows.length.toLocaleString("en") : "";
  });
}
for (const head of document.querySelectorAll("th button")) {
  head.addEventListener("click", () => {
    const cell = head.parentElement, column = cell.cellIndex, body = cell.closest("table").tBodies[0];
    const down = cell.getAttribute("aria-sort") === "ascending";
    for (const other of cell.parentElement.cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const of = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const numbers = (a, b) => a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
    const both = (a, b) => numbers(a, b) ? a - b : String(a).localeCompare(b, "en", {numeric: true});
    body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * both(of(a), of(b))));
  });
}
for (const pre of document.querySelectorAll("pre")) pre.scrollTop = pre.scrollHeight;
const units = {
  bytes: v => { for (const u of ["B", "kB", "MB", "GB"]) { if (v < 999.5) return +v.toPrecision(3) + " " + u; v /= 1000; }
    return +v.toPrecision(3) + " TB"; },
  rate: v => units.bytes(v) + "/s", number: v => String(+v.toPrecision(4)),
  time: v => v < 100 ? v.toFixed(1) + " s"
    : v < 6000 ? Math.floor(v / 60) + " min " + String(Math.floor(v % 60)).padStart(2, "0") + " s"
    : Math.floor(v / 3600) + " h " + String(Math.floor(v % 3600 / 60)).padStart(2, "0") + " min"
};
for (const plot of document.querySelectorAll("svg[data-x1]")) {
  const d = plot.dataset, x0 = +d.x0, x1 = +d.x1, y0 = +d.y0, y1 = +d.y1;
  const points = line => line.getAttribute("points").split(" ").map(p => p.split(",").map(Number));
  const lines = [...plot.querySelectorAll("polyline")].map(points);
  const outs = [...plot.closest("figure").querySelectorAll(".key output")], at = plot.querySelector(".at");
  const show = event => {
    const box = plot.getBoundingClientRect(), px = (event.clientX - box.left) / box.width * 1000;
    if (!lines.length || px < 0 || px > 1000) return;
    at.setAttribute("d", "M" + px + " 0V100");
    lines.forEach((line, i) => {
      const near = line.reduce((a, b) => Math.abs(b[0] - px) < Math.abs(a[0] - px) ? b : a);
      outs[i].textContent = units[d.unit](Math.max(0, 1 - near[1] / 100) * (y1 - y0) + y0);
    });
    outs[lines.length].textContent = "at " + units[d.xunit](x0 + px / 1000 * (x1 - x0));
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerleave", () => { at.setAttribute("d", ""); outs.forEach(o => { o.textContent = ""; }); });
}
""".strip()
