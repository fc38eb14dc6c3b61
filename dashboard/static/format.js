// Figures in words and units.

export const missing = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value) {
  return value == null ? missing : whole.format(value).replaceAll(",", "\u202f").replace("-", "−");
}

// What may be whole or a fraction: counts, and intensities that a file holds normalised.
export function amount(value) {
  return value == null || Number.isInteger(value) || value >= 100 ? count(value) : String(Number(value.toPrecision(3)));
}

export function fixed(value, digits) {
  return value == null ? missing : value.toFixed(digits).replace("-", "−");
}

// How many decimals tell a hundredth of what lies between two figures, of weak phases too.
export function decimals(lower, upper) {
  return Math.min(Math.max(2, 1 - Math.floor(Math.log10(upper - lower))), 12);
}

export function signed(value, digits) {
  return value == null ? missing : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
}

export function rate(value) {
  if (value == null) return missing;
  return `${value >= 100 ? count(value) : value >= 1 ? fixed(value, 1) : amount(value)} /s`;
}

export function milliseconds(value) {
  if (value == null) return missing;
  if (value >= 10_000) return `${fixed(value / 1000, 1)} s`;
  return `${fixed(value, value < 10 ? 1 : 0)} ms`;
}

export function duration(seconds) {
  if (seconds == null) return missing;
  const total = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(rest).padStart(2, "0")} s` : `${rest} s`;
}

export function length(metres) {
  const units = [[1e-3, "mm"], [1e-6, "µm"], [1e-9, "nm"]];
  const [size, unit] = units.find(([size]) => metres >= size * 0.999) ?? units.at(-1);
  return `${Number((metres / size).toPrecision(3))} ${unit}`;
}

export function percent(fraction) {
  return fraction == null ? missing : `${fixed(100 * fraction, 0)} %`;
}
