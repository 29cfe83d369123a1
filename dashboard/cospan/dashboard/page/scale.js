// Scales and ticks of axes.
export function linearTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? 10 * power;
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

export function logTicks(low, high) {
  const decades = Math.log10(high) - Math.log10(low);
  const whole = ticksOf(low, high, [1], Math.max(1, Math.round(decades / 4)));
  return whole.length > 2 ? whole : ticksOf(low, high, decades > 1.5 ? [1, 3] : [1, 2, 5], 1);
}

function ticksOf(low, high, factors, every) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    if (power % every !== 0) continue;
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

// The bounds of an axis around some values; null if none can be shown.
export function boundsOf(values, log) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined || (log && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  if (log) {
    if (high / low < 4) { low /= 1.6; high *= 1.6; }
    return [low / 1.15, high * 1.15];
  }
  low = Math.min(0, low);
  return [low, high <= low ? low + 1 : high + (high - low) * 0.12];
}

// A function from values to pixels.
export function scaleOf(log, [low, high], [from, to]) {
  if (!log) return (value) => from + ((value - low) / (high - low)) * (to - from);
  const span = Math.log(high / low);
  return (value) => from + (Math.log(Math.max(value, low * 1e-3) / low) / span) * (to - from);
}

// Exponentially weighted means, without the bias of their beginning; of logarithms where the axis has them.
export function smoothed(points, weight, log) {
  let sum = 0;
  let total = 0;
  return points.filter(([, value]) => !log || value > 0).map(([x, value]) => {
    sum = weight * sum + (1 - weight) * (log ? Math.log(value) : value);
    total = weight * total + (1 - weight);
    return [x, log ? Math.exp(sum / total) : sum / total];
  });
}
