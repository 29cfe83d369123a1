// Formats numbers; null means unknown and is shown as a dash.
export const NONE = "–";

export function number(value, digits = 3) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    return `${Number(mantissa)}e${Number(power)}`.replaceAll("-", "−");
  }
  if (size >= 1e5) return compact(value);
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

export const whole = (value) => (value === null || value === undefined ? NONE : value.toLocaleString("en").replaceAll(",", "\u202f"));

export function compact(value) {
  const size = Math.abs(value);
  for (const [least, name] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= least) return `${Number((value / least).toPrecision(3))}${name}`;
  }
  return String(Number(value.toPrecision(3)));
}

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1e-3) return `${Number((value * 1e6).toPrecision(3))} µs`;
  if (value < 1) return `${Number((value * 1e3).toPrecision(3))} ms`;
  if (value < 120) return `${Number(value.toPrecision(3))} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return value < 172800 ? `${Number((value / 3600).toPrecision(2))} h` : `${Math.round(value / 86400)} days`;
}
