// Every text that can be seen, and those that stand out less from what is behind them than WCAG AA asks.
// Texts on heat maps are left out: they are drawn black or white by the same rule (report/charts.py).
() => {
  const parse = (text) => {
    const found = text.match(/[\d.]+/g).map(Number);
    return [...found.slice(0, 3), found[3] ?? 1];
  };
  const over = (top, below) => top.slice(0, 3).map((part, i) => part * top[3] + below[i] * (1 - top[3]));
  const luminance = (colour) => {
    const [red, green, blue] = colour.map((part) =>
      part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    const page = parse(getComputedStyle(document.documentElement).backgroundColor);
    return layers.reverse().reduce((below, layer) => over(layer, below), page[3] ? page : [255, 255, 255]);
  };
  const weak = [];
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    const drawing = element.closest('svg');
    if (!text || !element.checkVisibility() || drawing?.querySelector('image')) continue;
    const style = getComputedStyle(element);
    const back = ground(drawing?.parentElement ?? element);
    const front = over(parse(drawing ? style.fill : style.color), back);
    const [more, less] = [luminance(front), luminance(back)].sort((x, y) => y - x);
    const ratio = (more + 0.05) / (less + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    count += 1;
    if (ratio < (large ? 3 : 4.5)) weak.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)}`);
  }
  return [count, weak];
}
