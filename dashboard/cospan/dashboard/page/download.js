// Charts as files: CSV of their numbers, PNG of what is seen.
import { make } from "./dom.js";

const SCALE = 2;
const MARGIN = 16;
const HEAD = 34;
const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap", "opacity", "fill-opacity", "font-family", "font-size", "font-weight"];

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const cell = (value) => {
  if (value === null || value === undefined) return "";
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

export function saveCsv(name, columns, rows) {
  const lines = [columns, ...rows].map((row) => row.map(cell).join(","));
  save(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }), `${name}.csv`);
}

// The picture of a chart: its SVG with the styles of the page as attributes, on the page's ground, below its title.
// keys: [{name, element}], whose colour the legend has.
export async function savePng(name, title, svg, keys = []) {
  const { width, height } = svg.getBoundingClientRect();
  const copy = svg.cloneNode(true);
  const [seen, copied] = [svg, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  seen.forEach((element, place) => {
    if (element.hasAttribute("hidden")) { copied[place].setAttribute("display", "none"); return; }
    const style = getComputedStyle(element);
    for (const property of STYLES) copied[place].setAttribute(property, style.getPropertyValue(property));
  });
  for (const [key, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` })) copy.setAttribute(key, value);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  await image.decode();
  const canvas = make("canvas", { width: Math.round((width + 2 * MARGIN) * SCALE), height: Math.round((height + HEAD + MARGIN) * SCALE) });
  const context = canvas.getContext("2d");
  const root = getComputedStyle(document.documentElement);
  context.scale(SCALE, SCALE);
  context.fillStyle = root.getPropertyValue("--surface");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = root.getPropertyValue("--text");
  context.font = `600 15px ${getComputedStyle(document.body).fontFamily}`;
  context.fillText(title, MARGIN, 24);
  let right = width + MARGIN;
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  for (const { name: said, element } of [...keys].reverse()) {
    right -= context.measureText(said).width;
    context.fillStyle = root.getPropertyValue("--muted");
    context.fillText(said, right, 23);
    context.fillStyle = getComputedStyle(element).backgroundColor;
    context.fillRect(right - 16, 18, 11, 3);
    right -= 30;
  }
  context.drawImage(image, MARGIN, HEAD, width, height);
  const blob = await new Promise((done) => { canvas.toBlob(done, "image/png"); });
  save(blob, `${name}.png`);
}
